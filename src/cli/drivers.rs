//! `vigie drivers [NAME]`

use super::table::table;
use super::{FINE, WRONG, complain, print};
use crate::drivers::{self, DRIVERS};
use crate::options::did_you_mean;

pub(super) fn drivers(name: Option<&str>) -> u8 {
    let Some(name) = name else {
        let rows: Vec<Vec<String>> =
            DRIVERS.iter().map(|driver| vec![driver.name.to_owned(), driver.summary.to_owned()]).collect();
        print(&table(&rows));
        print("\n`vigie drivers NAME` shows a driver's options and a sample.\n");
        return FINE;
    };
    if let Some(driver) = drivers::find(name) {
        print(&drivers::docs::driver(driver));
        return FINE;
    }
    let known: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
    let hint = did_you_mean(name, &known)
        .map_or_else(|| format!("there are {}", known.join(", ")), |word| format!("did you mean `{word}`?"));
    complain(&format!("no driver `{name}`: {hint}"));
    WRONG
}
