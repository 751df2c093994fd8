//! The channels of a device of the kernel's: their names as quantities, and which of them are wanted.

use super::names;
use crate::hardware::KernelFiles;
use crate::options::Options;
use crate::reading::{Fault, FaultCode};

/// Channels that are taken from one device, at most.
pub(crate) const MAX_CHANNELS: usize = 64;

/// The key that says which channels are wanted.
pub(crate) const KEY: &str = "channels";

/// A channel that a device has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Channel<T> {
    /// As messages call it, by the kernel's name: `in_temp`, `temp1`.
    pub(crate) kernel_name: String,
    /// The name of its quantity.
    pub(crate) quantity: String,
    /// How to read it.
    pub(crate) how: T,
}

/// Reads the key `channels`: `Err` if it is wrong, which is noted; `None` where it is left out.
pub(crate) fn parse(options: &Options<'_>) -> Result<Option<Vec<String>>, ()> {
    let given = options.raw(KEY).is_some();
    match options.optional::<Vec<String>>(KEY) {
        Some(list) if list.is_empty() => {
            let expected = "expected names of quantities; leave the key out for all".to_owned();
            options.problem(KEY, format!("`{KEY}` of {} is empty", options.what()), Some(expected));
            Err(())
        }
        None if given => Err(()),
        list => Ok(list),
    }
}

/// Gives each channel its label as its name, unless another one has the same. The rest keep their names.
pub(crate) fn name_by_labels<T>(channels: &mut [Channel<T>], labels: &[Option<String>]) {
    let names: Vec<Option<String>> = labels
        .iter()
        .map(|label| {
            let label = label.as_deref().map(str::trim).filter(|label| !label.is_empty())?;
            let mut name = String::new();
            names::push_safe(&mut name, label);
            Some(names::quantity(&name))
        })
        .collect();
    for (index, name) in names.iter().enumerate() {
        let taken = |other: &&Option<String>| *other == name;
        if let Some(name) = name
            && names.iter().filter(taken).count() == 1
            && !channels.iter().any(|channel| channel.quantity == *name)
        {
            channels[index].quantity.clone_from(name);
        }
    }
}

/// The channels that are wanted, in the order of the list; all of them where there is no list.
///
/// # Errors
/// The device does not have one of them, or none at all.
pub(crate) fn choose<T: Clone>(
    channels: Vec<Channel<T>>,
    wanted: Option<&[String]>,
    device: &str,
) -> Result<Vec<Channel<T>>, Fault> {
    if channels.is_empty() {
        let detail = format!("{device} has nothing that can be read (its driver may only give alarms or a buffer)");
        return Err(Fault::new(FaultCode::Missing, detail));
    }
    let Some(wanted) = wanted else { return Ok(channels) };
    wanted
        .iter()
        .map(|name| {
            let found = channels.iter().find(|channel| channel.quantity == *name || channel.kernel_name == *name);
            found.cloned().ok_or_else(|| {
                let there: Vec<&str> = channels.iter().map(|channel| channel.quantity.as_str()).collect();
                let detail = format!("{device} has no channel `{name}`; it has: {}", there.join(", "));
                Fault::new(FaultCode::Missing, detail)
            })
        })
        .collect()
}

/// A fault with the channel before its words, and a way to go on without that channel.
pub(crate) fn fault_of(kernel_name: &str, several: bool, fault: &Fault) -> Fault {
    let way_out = if several { "; `channels` can list the others alone" } else { "" };
    Fault::new(fault.code, format!("channel {kernel_name}: {}{way_out}", fault.detail))
}

/// The text of a file that need not be there.
pub(crate) fn text(files: &dyn KernelFiles, path: &std::path::Path) -> Option<String> {
    files.read(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(names: &[&str]) -> Vec<Channel<()>> {
        let made = |name: &&str| Channel { kernel_name: format!("in_{name}"), quantity: (*name).to_owned(), how: () };
        names.iter().map(made).collect()
    }

    #[test]
    fn labels_become_names_where_they_are_the_only_ones() {
        let mut four = channels(&["temperature1", "temperature2", "temperature3", "temperature4"]);
        let labels = ["Core 0", "x/y", "x/y", "info"].map(|label| Some(label.to_owned()));
        name_by_labels(&mut four, &labels);
        let names: Vec<&str> = four.iter().map(|channel| channel.quantity.as_str()).collect();
        assert_eq!(names, ["Core 0", "temperature2", "temperature3", "info_"]);
    }

    #[test]
    fn what_is_wanted_is_chosen_or_missed() {
        let all = channels(&["temperature", "humidity"]);
        let wanted = ["in_humidity".to_owned()];
        let chosen = choose(all.clone(), Some(&wanted), "the chip").expect("it is there");
        assert_eq!(chosen, all[1..]);
        assert_eq!(choose(all.clone(), None, "the chip").expect("all"), all);
        let fault = choose(all, Some(&["pressure".to_owned()]), "the chip").expect_err("not there");
        assert!(fault.detail.contains("`pressure`") && fault.detail.contains("temperature, humidity"), "{fault}");
        assert!(choose(channels(&[]), None, "the chip").is_err());
    }
}
