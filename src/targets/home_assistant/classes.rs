//! Which of Home Assistant's device classes a quantity has, by its name and unit.
//!
//! Source: www.home-assistant.io/integrations/sensor, "Device class", and for what goes together, `DEVICE_CLASS_UNITS`
//! and `DEVICE_CLASS_STATE_CLASSES` of its component `sensor`. An entity whose unit does not go with its class is refused,
//! so that where nothing fits there is no class. Units that it has come to know only lately are left out.

/// What Home Assistant is told of a quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// `device_class`
    pub device: Option<&'static str>,
    /// `state_class`: without one there are no long-term statistics.
    pub state: Option<&'static str>,
}

const MEASUREMENT: Option<&str> = Some("measurement");
/// A meter's reading; a fall counts as the meter's beginning anew.
const TOTAL: Option<&str> = Some("total_increasing");

/// A device class of `sensor`.
#[derive(Debug)]
pub struct Row {
    /// `device_class`
    pub device: &'static str,
    /// `state_class`
    pub state: Option<&'static str>,
    /// Units that go with it; an empty one stands for none.
    pub units: &'static [&'static str],
    /// Names that say so: one of these, all words of which are in the quantity's name. None: the unit says it all.
    pub names: &'static [&'static str],
}

const fn row(
    device: &'static str,
    state: Option<&'static str>,
    units: &'static [&'static str],
    names: &'static [&'static str],
) -> Row {
    Row { device, state, units, names }
}

const MICROGRAMS: &[&str] = &["µg/m³"];
const PRESSURE: &[&str] = &["Pa", "hPa", "kPa", "bar", "mbar", "mmHg", "inHg", "psi"];

/// The first that fits counts: what the name says comes before what the unit alone does.
pub static ROWS: &[Row] = &[
    row("wind_speed", MEASUREMENT, &["m/s", "km/h", "mph"], &["wind"]),
    row("humidity", MEASUREMENT, &["%"], &["humidity"]),
    row("moisture", MEASUREMENT, &["%"], &["moisture", "soil"]),
    row("battery", MEASUREMENT, &["%"], &["battery"]),
    row("power_factor", MEASUREMENT, &["%", ""], &["power factor"]),
    row("carbon_dioxide", MEASUREMENT, &["ppm"], &["co2"]),
    row("carbon_monoxide", MEASUREMENT, &["ppm"], &["co"]),
    row("volatile_organic_compounds_parts", MEASUREMENT, &["ppb", "ppm"], &["voc", "tvoc"]),
    row("volatile_organic_compounds", MEASUREMENT, MICROGRAMS, &["voc", "tvoc"]),
    row("pm1", MEASUREMENT, MICROGRAMS, &["pm1"]),
    row("pm25", MEASUREMENT, MICROGRAMS, &["pm25", "pm2 5"]),
    row("pm10", MEASUREMENT, MICROGRAMS, &["pm10"]),
    row("nitrogen_dioxide", MEASUREMENT, MICROGRAMS, &["no2"]),
    row("sulphur_dioxide", MEASUREMENT, MICROGRAMS, &["so2"]),
    row("ozone", MEASUREMENT, MICROGRAMS, &["o3", "ozone"]),
    row("aqi", MEASUREMENT, &[""], &["aqi"]),
    row("ph", MEASUREMENT, &[""], &["ph"]),
    row("precipitation_intensity", MEASUREMENT, &["mm/h"], &["rain", "precipitation"]),
    row("precipitation", TOTAL, &["mm", "cm", "in"], &["rain", "precipitation"]),
    row("gas", TOTAL, &["m³"], &["gas"]),
    row("water", TOTAL, &["m³", "L"], &["water"]),
    row("volume", TOTAL, &["m³", "L", "mL"], &["total"]),
    row("signal_strength", MEASUREMENT, &["dB", "dBm"], &["rssi", "signal"]),
    row("sound_pressure", MEASUREMENT, &["dB", "dBA"], &["sound", "noise"]),
    row("atmospheric_pressure", MEASUREMENT, PRESSURE, &["atmospheric", "barometric", "barometer"]),
    row("temperature", MEASUREMENT, &["°C", "°F", "K"], &[]),
    row("pressure", MEASUREMENT, PRESSURE, &[]),
    row("illuminance", MEASUREMENT, &["lx"], &[]),
    row("irradiance", MEASUREMENT, &["W/m²"], &[]),
    row("voltage", MEASUREMENT, &["V", "mV"], &[]),
    row("current", MEASUREMENT, &["A", "mA"], &[]),
    row("power", MEASUREMENT, &["W", "kW"], &[]),
    row("apparent_power", MEASUREMENT, &["VA"], &[]),
    row("reactive_power", MEASUREMENT, &["var"], &[]),
    row("energy", TOTAL, &["Wh", "kWh"], &[]),
    row("frequency", MEASUREMENT, &["Hz", "kHz", "MHz"], &[]),
    row("distance", MEASUREMENT, &["mm", "cm", "m", "km", "in", "ft"], &[]),
    row("speed", MEASUREMENT, &["m/s", "km/h", "mph"], &[]),
    row("weight", MEASUREMENT, &["mg", "g", "kg"], &[]),
    row("duration", MEASUREMENT, &["ms", "s", "min", "h", "d"], &[]),
    row("volume_flow_rate", MEASUREMENT, &["m³/h", "L/min"], &[]),
    row("conductivity", MEASUREMENT, &["µS/cm"], &[]),
    row("signal_strength", MEASUREMENT, &["dBm"], &[]),
    row("sound_pressure", MEASUREMENT, &["dBA"], &[]),
    row("data_size", MEASUREMENT, &["B", "kB"], &[]),
];

/// Names of numbers without a class that only grow.
const TOTALS: [&str; 2] = ["total", "count"];

/// Device classes of `binary_sensor` whose name says what "on" means
/// (www.home-assistant.io/integrations/binary_sensor).
const SWITCHES: [&str; 12] = [
    "door",
    "garage_door",
    "motion",
    "occupancy",
    "opening",
    "presence",
    "problem",
    "running",
    "smoke",
    "tamper",
    "vibration",
    "window",
];

/// The classes of a number.
#[must_use]
pub fn of_number(name: &str, unit: Option<&str>) -> Class {
    let unit = unit.unwrap_or_default();
    let words = words(name);
    let said = |phrase: &&str| phrase.split(' ').all(|word| words.iter().any(|known| known == word));
    let fits = |row: &&Row| row.units.contains(&unit) && (row.names.is_empty() || row.names.iter().any(said));
    if let Some(row) = ROWS.iter().find(fits) {
        return Class { device: Some(row.device), state: row.state };
    }
    let state = match unit {
        // A mean of angles is none of them.
        "°" => None,
        _ if TOTALS.iter().any(said) => TOTAL,
        _ => MEASUREMENT,
    };
    Class { device: None, state }
}

/// The device class of a switch.
#[must_use]
pub fn of_switch(name: &str) -> Option<&'static str> {
    let words = words(name);
    let said = |class: &&&str| class.split('_').all(|word| words.iter().any(|known| known == word));
    // Of two that fit, the one that says more.
    SWITCHES.iter().filter(said).max_by_key(|class| class.len()).copied()
}

fn words(name: &str) -> Vec<String> {
    let words = name.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_tell_the_class() {
        for (name, unit, device, state) in [
            ("temperature", "°C", "temperature", "measurement"),
            ("cpu_temperature", "K", "temperature", "measurement"),
            ("humidity", "%", "humidity", "measurement"),
            ("memory_used", "%", "", "measurement"),
            ("soil_0", "%", "moisture", "measurement"),
            ("soil_0", "", "", "measurement"),
            ("co2", "ppm", "carbon_dioxide", "measurement"),
            ("PM2.5", "µg/m³", "pm25", "measurement"),
            ("pressure", "hPa", "pressure", "measurement"),
            ("energy", "kWh", "energy", "total_increasing"),
            ("total", "m³", "volume", "total_increasing"),
            ("gas_total", "m³", "gas", "total_increasing"),
            ("count", "", "", "total_increasing"),
            ("tank", "L", "", "measurement"),
            ("wind_direction", "°", "", ""),
            ("latitude", "°", "", ""),
            ("wind_speed", "km/h", "wind_speed", "measurement"),
            ("speed", "km/h", "speed", "measurement"),
            ("ph", "pH", "", "measurement"),
            ("power", "mW", "", "measurement"),
            ("load_1", "", "", "measurement"),
        ] {
            let class = of_number(name, Some(unit).filter(|unit| !unit.is_empty()));
            let shown = (class.device.unwrap_or_default(), class.state.unwrap_or_default());
            assert_eq!(shown, (device, state), "{name} in {unit:?}");
        }
    }

    #[test]
    fn switches_have_a_class_where_on_means_something() {
        for (name, class) in [
            ("motion", Some("motion")),
            ("front_door", Some("door")),
            ("garage-door", Some("garage_door")),
            ("state", None),
            ("doorbell", None),
        ] {
            assert_eq!(of_switch(name), class, "{name}");
        }
    }
}
