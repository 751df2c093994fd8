//! A moment as the agent's own messages say it: as the readings do, but without an id.

use serde::Serialize;

use crate::clock::BootTime;
use crate::uplink::dating::Date;

/// A moment as published: `time`, or `boot` and `uptime` where nobody knows it.
#[derive(Serialize)]
pub(super) struct When {
    /// RFC 3339, in UTC and to the millisecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// Seconds since that boot, to the millisecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime: Option<f64>,
}

impl When {
    /// For people.
    pub(super) fn text(self) -> String {
        let since_boot = || format!("{} s after the start", self.uptime.unwrap_or_default());
        self.time.unwrap_or_else(since_boot)
    }
}

impl From<Date> for When {
    fn from(date: Date) -> Self {
        match date {
            Date::Wall(time) => {
                let time = humantime::format_rfc3339_millis(time.to_system()).to_string();
                Self { time: Some(time), boot: None, uptime: None }
            }
            Date::Uptime(boot, BootTime(nanos)) => {
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of an uptime stay below 2^53")]
                let uptime = (nanos / 1_000_000) as f64 / 1_000.0;
                Self { time: None, boot: Some(boot.to_string()), uptime: Some(uptime) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{BootId, WallTime};

    #[test]
    fn a_moment_has_a_time_or_else_a_boot_and_its_uptime() {
        let json = |date| serde_json::to_string(&When::from(date)).expect("texts and numbers");
        let (dated, boot) = (Date::Wall(WallTime(1_123_999_999)), BootId([0xab; 16]));
        assert_eq!(json(dated), r#"{"time":"1970-01-01T00:00:01.123Z"}"#);
        assert_eq!(When::from(dated).text(), "1970-01-01T00:00:01.123Z");
        let undated = |milliseconds: u64| Date::Uptime(boot, BootTime(milliseconds * 1_000_000 + 999_999));
        assert_eq!(When::from(undated(7_000)).text(), "7 s after the start");
        // As in a reading, no digit more than milliseconds have.
        for (milliseconds, uptime) in [(0, "0.0"), (5_000, "5.0"), (83_004, "83.004"), (4_294_967_001, "4294967.001")] {
            let expected = format!(r#"{{"boot":"abababababababababababababababab","uptime":{uptime}}}"#);
            assert_eq!(json(undated(milliseconds)), expected);
        }
    }
}
