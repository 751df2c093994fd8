//! The problems of a configuration with the files they are in, and how they are shown.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::redact::redact;
use super::source::{File, Files};
use crate::options::Problem;

/// How many problems are shown in full; the rest is counted.
pub const MAX_SHOWN: usize = 200;

/// Everything that is wrong with a configuration, and what may not be meant. Holds no secret, even if one stood in a file.
#[derive(Clone, Debug)]
pub struct Report {
    files: Files,
    problems: Vec<Problem>,
}

impl Report {
    /// Of at least one problem.
    pub(super) fn new(files: Files, problems: Vec<Problem>) -> Self {
        Self { files: files.map_texts(redact), problems }
    }

    /// How many problems there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// Each problem in a line, for logs: its place, what it is, what to do.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().take(MAX_SHOWN).map(|problem| {
            let place = self.files.locate(&problem.span).map_or_else(String::new, |(file, span)| {
                let line = file.text[..span.start].matches('\n').count() + 1;
                format!("{}:{line}: ", file.path)
            });
            let help = problem.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
            clean(&format!("{place}{}{help}", problem.message))
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(self, false))
    }
}

impl std::error::Error for Report {}

/// Shows every problem with its file, line and column, the line itself and a mark under the place, and their count at
/// the end. With `color`, for terminals.
#[must_use]
pub fn render(report: &Report, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for problem in report.problems.iter().take(MAX_SHOWN) {
        text.push_str(&renderer.render(&[group(report, problem)]));
        text.push_str("\n\n");
    }
    text.push_str(&summary(report));
    text.push('\n');
    text
}

fn summary(report: &Report) -> String {
    let count = report.problems.len();
    let warnings = report.problems.iter().filter(|problem| problem.is_warning).count();
    let counted = |count: usize, noun: &str| match count {
        0 => None,
        1 => Some(format!("1 {noun}")),
        _ => Some(format!("{count} {noun}s")),
    };
    let kinds = [counted(count - warnings, "error"), counted(warnings, "warning")];
    let mut text = kinds.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    let files: Vec<&str> = report.files.iter().map(|file| file.path.as_str()).collect();
    match files.as_slice() {
        [main] => text.push_str(&format!(" in {}", clean(main))),
        [main, _] => text.push_str(&format!(" in {} and 1 fragment", clean(main))),
        [main, rest @ ..] => text.push_str(&format!(" in {} and {} fragments", clean(main), rest.len())),
        [] => {}
    }
    if count > MAX_SHOWN {
        text.push_str(&format!("; the first {MAX_SHOWN} are shown"));
    }
    text
}

/// What comes from files may hold control characters; a terminal must not see them.
fn clean(text: &str) -> String {
    annotate_snippets::normalize_untrusted_str(text)
}

fn group<'a>(report: &'a Report, problem: &Problem) -> Group<'a> {
    let level = if problem.is_warning { Level::WARNING } else { Level::ERROR };
    let mut group = level.primary_title(clean(&problem.message)).elements(Vec::<Element<'a>>::new());
    let label = problem.expected.as_deref().map(clean);
    let mut marks = vec![(problem.span.clone(), AnnotationKind::Primary, label)];
    if let Some((span, what)) = &problem.related {
        marks.push((span.clone(), AnnotationKind::Context, Some(clean(what))));
    }
    let mut places: Vec<(&File, Vec<Mark>)> = Vec::new();
    for (span, kind, label) in marks {
        let Some((file, span)) = report.files.locate(&span) else { continue };
        let mark = Mark { span, kind, label };
        match places.iter_mut().find(|(known, _)| known.base == file.base) {
            Some((_, marks)) => marks.push(mark),
            None => places.push((file, vec![mark])),
        }
    }
    for (file, marks) in places {
        if file.text.is_empty() {
            group = group.element(Origin::path(file.path.as_str()));
        } else {
            group = group.element(snippet(file, marks));
        }
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(clean(help)));
    }
    group
}

/// A place to mark within one file's text.
struct Mark {
    span: Range<usize>,
    kind: AnnotationKind,
    label: Option<String>,
}

/// The lines of the marks. Only those are handed over: the renderer would scan the whole text for each problem.
fn snippet(file: &File, marks: Vec<Mark>) -> Snippet<'_, Annotation<'_>> {
    let text = file.text.as_str();
    let first = marks.iter().map(|mark| mark.span.start).min().unwrap_or_default();
    let last = marks.iter().map(|mark| mark.span.end).max().unwrap_or_default();
    let bytes = text.as_bytes();
    let start = bytes[..first].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let end = bytes[last..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |offset| last + offset);
    let line = bytes[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    Snippet::source(&text[start..end]).line_start(line).path(file.path.as_str()).annotations(
        marks.into_iter().map(|mark| mark.kind.span(mark.span.start - start..mark.span.end - start).label(mark.label)),
    )
}
