//! The inputs of an analog-to-digital converter that a sensor reads: the key `inputs`.

use crate::options::{Options, did_you_mean};

/// An input, or a pair of which the difference is measured: the name of its quantity, and the chip's code for it.
pub(crate) type Input = (&'static str, u8);

/// Reads `inputs`; problems are noted there. Each input once, in the order in which they are given.
pub(crate) fn parse(options: &Options<'_>, known: &[Input], default: &[&str]) -> Option<Vec<Input>> {
    let given = options.optional::<Vec<String>>("inputs");
    let names: Vec<&str> = given.as_ref().map_or(default.to_vec(), |given| given.iter().map(String::as_str).collect());
    let list = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let expected = || Some(format!("expected some of {}", list().join(", ")));
    if names.is_empty() {
        options.problem("inputs", format!("`inputs` of {} is empty", options.what()), expected());
        return None;
    }
    let mut inputs: Vec<Input> = Vec::new();
    for name in names {
        let Some(input) = known.iter().find(|(known, _)| *known == name) else {
            let message = format!("`inputs` of {}: the chip has no input \"{name}\"", options.what());
            let help = did_you_mean(name, &list()).map(|name| format!("did you mean \"{name}\"?"));
            options.problem_with_help("inputs", message, expected(), help);
            return None;
        };
        if inputs.contains(input) {
            options.problem("inputs", format!("`inputs` of {} names \"{name}\" twice", options.what()), None);
            return None;
        }
        inputs.push(*input);
    }
    Some(inputs)
}
