//! Units as devices print them.

/// The longest word that is taken for a unit that is not in the list, in bytes.
const MAX_WORD: usize = 16;

/// The unit that people mean by this: in the common spellings of sketches, with `°` in all the ways in which it comes
/// out of a serial port.
pub(crate) fn known(text: &str) -> Option<&'static str> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    exactly(text).or_else(|| {
        let plain = text.len() > 2 && text.len() <= MAX_WORD && text.bytes().any(|byte| byte.is_ascii_uppercase());
        plain.then(|| exactly(&text.to_ascii_lowercase())).flatten()
    })
}

/// Letters count as they are: `mW` and `MW` are not the same.
fn exactly(text: &str) -> Option<&'static str> {
    Some(match text {
        "%" | "%rh" | "%RH" | "% rh" | "% RH" | "percent" => "%",
        // U+00DF and U+00F8 are what displays and old code pages have as a degree sign, read as Latin-1.
        "°C" | "C" | "ºC" | "˚C" | "*C" | "'C" | "oC" | "ßC" | "øC" | "℃" | "degC" | "degc" | "deg C" | "deg c"
        | "° C" | "degrees C" | "degrees c" | "celsius" | "degrees celsius" | "deg. C" | "deg. c" => "°C",
        "°F" | "F" | "ºF" | "˚F" | "*F" | "'F" | "oF" | "ßF" | "øF" | "℉" | "degF" | "degf" | "deg F" | "deg f"
        | "° F" | "degrees F" | "degrees f" | "fahrenheit" | "degrees fahrenheit" | "deg. F" | "deg. f" => "°F",
        "°" | "º" | "deg" | "degree" | "degrees" => "°",
        "K" | "kelvin" => "K",
        "V" | "volt" | "volts" => "V",
        "mV" | "millivolt" | "millivolts" => "mV",
        "µV" | "μV" | "uV" => "µV",
        "kV" => "kV",
        "A" | "amp" | "amps" | "ampere" | "amperes" => "A",
        "mA" => "mA",
        "µA" | "μA" | "uA" => "µA",
        "W" | "watt" | "watts" => "W",
        "mW" => "mW",
        "kW" => "kW",
        "VA" => "VA",
        "var" => "var",
        "Wh" => "Wh",
        "kWh" | "kwh" => "kWh",
        "mAh" | "mah" => "mAh",
        "Ah" => "Ah",
        "J" => "J",
        "kJ" => "kJ",
        "Ω" | "\u{2126}" | "ohm" | "ohms" => "Ω",
        "kΩ" | "k\u{2126}" | "kohm" | "kohms" => "kΩ",
        "MΩ" | "M\u{2126}" => "MΩ",
        "pF" => "pF",
        "nF" => "nF",
        "µF" | "μF" | "uF" => "µF",
        "Hz" | "hertz" => "Hz",
        "kHz" | "khz" => "kHz",
        "MHz" => "MHz",
        "rpm" => "rpm",
        "bpm" => "bpm",
        "Pa" | "pascal" | "pascals" => "Pa",
        "hPa" | "hpa" => "hPa",
        "kPa" | "kpa" => "kPa",
        "MPa" => "MPa",
        "mbar" | "millibar" | "millibars" => "mbar",
        "bar" => "bar",
        "psi" => "psi",
        "mmHg" | "mmhg" => "mmHg",
        "inHg" | "inhg" => "inHg",
        "lx" | "lux" => "lx",
        "lm" | "lumen" | "lumens" => "lm",
        "W/m2" | "W/m²" | "W/m^2" | "w/m2" => "W/m²",
        "ppm" => "ppm",
        "ppb" => "ppb",
        "µg/m³" | "μg/m³" | "ug/m3" | "µg/m3" | "μg/m3" | "ug/m^3" | "µg/m^3" | "ug/m³" => "µg/m³",
        "mg/m³" | "mg/m3" | "mg/m^3" => "mg/m³",
        "g/m³" | "g/m3" | "g/m^3" => "g/m³",
        "mg/L" | "mg/l" => "mg/L",
        "µS/cm" | "μS/cm" | "uS/cm" | "us/cm" => "µS/cm",
        "mS/cm" | "ms/cm" => "mS/cm",
        "NTU" | "ntu" => "NTU",
        "pH" => "pH",
        "m" | "meter" | "meters" | "metre" | "metres" | "mètre" | "mètres" => "m",
        "km" => "km",
        "cm" | "centimeters" | "centimetres" => "cm",
        "mm" | "millimeters" | "millimetres" => "mm",
        "µm" | "μm" | "um" => "µm",
        "in" | "inch" | "inches" => "in",
        "ft" | "feet" => "ft",
        "m/s" | "mps" => "m/s",
        "km/h" | "kmh" | "kph" => "km/h",
        "mph" => "mph",
        "m/s²" | "m/s2" | "m/s^2" => "m/s²",
        "°/s" | "deg/s" | "dps" => "°/s",
        "rad/s" => "rad/s",
        "rad" => "rad",
        "g" | "grams" | "gram" => "g",
        "kg" => "kg",
        "mg" => "mg",
        "N" => "N",
        "L" | "l" | "liter" | "liters" | "litre" | "litres" => "L",
        "mL" | "ml" => "mL",
        "m³" | "m3" | "m^3" => "m³",
        "L/min" | "l/min" | "lpm" => "L/min",
        "L/h" | "l/h" => "L/h",
        "m³/h" | "m3/h" | "m^3/h" => "m³/h",
        "mm/h" => "mm/h",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "millis" => "ms",
        "µs" | "μs" | "us" => "µs",
        "min" | "minute" | "minutes" => "min",
        "h" | "hour" | "hours" => "h",
        "d" | "days" => "d",
        "dB" | "db" => "dB",
        "dBm" | "dbm" => "dBm",
        "dBA" | "dba" => "dBA",
        "µT" | "μT" | "uT" => "µT",
        "mT" => "mT",
        "T" => "T",
        "G" => "G",
        "B" | "bytes" => "B",
        "kB" => "kB",
        _ => return None,
    })
}

/// Can a word that stands alone behind a number be its unit, although it is not known?
pub(crate) fn may_be(word: &str) -> bool {
    let letter =
        |character: char| character.is_alphabetic() || matches!(character, '%' | '°' | '/' | '²' | '³' | '^' | '·');
    word.len() <= MAX_WORD
        && word.starts_with(|first: char| first.is_alphabetic() || first == '%' || first == '°')
        && word.chars().all(|character| letter(character) || character.is_ascii_digit())
}

/// Is it a unit by its looks, as `%` and `°C` are, where a letter might mean something else?
pub(crate) fn is_symbol(unit: &str) -> bool {
    unit.chars().any(|character| !character.is_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_sketches_are_known() {
        for (text, unit) in [
            ("C", "°C"),
            ("[cm]", "cm"),
            ("KOhms", "kΩ"),
            ("*F", "°F"),
            ("\u{df}C", "°C"),
            ("Celsius", "°C"),
            ("degrees Celsius", "°C"),
            ("LUX", "lx"),
            ("HPa", "hPa"),
            ("mW", "mW"),
            ("ug/m3", "µg/m³"),
            ("%RH", "%"),
        ] {
            assert_eq!(known(text), Some(unit), "{text}");
        }
        // Two letters are not guessed at: mw could be either.
        for text in ["", "mw", "x", "zork", "ab", "%%"] {
            assert_eq!(known(text), None, "{text}");
        }
    }

    #[test]
    fn words_may_be_units() {
        assert!(may_be("furlongs") && may_be("µg/m³") && may_be("°dH"));
        assert!(
            !may_be("") && !may_be("12") && !may_be("two words") && !may_be("[x]") && !may_be("/") && !may_be("a.b")
        );
    }
}
