//! GPIO expanders that a configuration names: no kernel knows them, so that it takes their settings to tell them.

use super::{Found, Options, Thing};
use crate::hardware::{ExpanderChip, ExpanderSettings, LineId};

/// Says of each expander which chip it is and who uses its lines; what is found on I2C comes before.
pub(super) fn tell(options: &Options, found: &mut Found) {
    for expander in &options.expanders {
        let place = super::i2c::place(expander.path, expander.address);
        let chip = match expander.chip {
            ExpanderChip::Mcp23017 => "MCP23017",
            ExpanderChip::Pcf8574 => "PCF8574",
        };
        let there = found.things.iter_mut().find(|thing| thing.interface == "I2C" && thing.place == place);
        let looked_at = options.buses.is_empty() || options.buses.contains(&expander.path.bus);
        match there {
            Some(thing) => thing.what = format!("expander `{}` ({chip}) of the configuration", expander.name),
            None if looked_at && !(options.no_mux && expander.path.channel.is_some()) => {
                found.troubles.push(format!("{expander} does not answer: check its supply, wiring and address"));
            }
            None => {}
        }
        found.things.push(lines(expander, &options.used));
    }
}

fn lines(ExpanderSettings { name, chip, .. }: &ExpanderSettings, used: &[(LineId, String)]) -> Thing {
    let mut here: Vec<(u32, &str)> = used
        .iter()
        .filter_map(|(line, user)| match line {
            LineId::Offset { chip, offset } if chip == name => Some((*offset, user.as_str())),
            _ => None,
        })
        .collect();
    here.sort_unstable();
    here.dedup();
    let mut what = String::new();
    for (offset, user) in &here {
        super::append(&mut what, format_args!("{offset} is for {user}, "));
    }
    what.push_str(if here.is_empty() { "all are free in the configuration" } else { "the others are free" });
    Thing { interface: "GPIO", place: format!("{name}:0 to {name}:{}", chip.lines() - 1), what, sensor: None }
}
