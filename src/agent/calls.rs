//! Work that is to be done on what a stage has, between two of its turns: how a reload reaches it.

use tokio::sync::{mpsc, oneshot};

/// What is to be done.
type Call<T> = Box<dyn FnOnce(&mut T)>;

/// Calls that may wait; a reload makes one at a time.
const QUEUE: usize = 4;

/// The end of whoever has something to be done.
pub(super) struct Caller<T>(mpsc::Sender<Call<T>>);

/// The stage's end.
pub(super) struct Calls<T>(mpsc::Receiver<Call<T>>);

/// Both ends.
pub(super) fn calls<T>() -> (Caller<T>, Calls<T>) {
    let (caller, calls) = mpsc::channel(QUEUE);
    (Caller(caller), Calls(calls))
}

impl<T: 'static> Caller<T> {
    /// Has the stage do something, and waits until it is done. `None`: the stage has ended.
    pub(super) async fn call<R: 'static>(&self, work: impl FnOnce(&mut T) -> R + 'static) -> Option<R> {
        let (done, answer) = oneshot::channel();
        let call: Call<T> = Box::new(move |stage| {
            // Whoever asked may have gone: the agent ends.
            let _ = done.send(work(stage));
        });
        self.0.send(call).await.ok()?;
        answer.await.ok()
    }
}

impl<T> Calls<T> {
    /// The next call. Never resolves once nobody is left to make one. Cancelling the wait loses none.
    pub(super) async fn next(&mut self) -> Call<T> {
        match self.0.recv().await {
            Some(call) => call,
            None => std::future::pending().await,
        }
    }
}
