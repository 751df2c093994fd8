//! What the examples of common Arduino libraries print, as they come.

use super::tests::read;

/// Reads with `ignore_other`, and holds each reading's samples against the expected ones.
fn check(text: &str, expected: &[&str]) {
    let mut read = read("ignore_other = true", text.as_bytes());
    for reading in &mut read {
        if let Some(end) = reading.find(", ignored_lines=") {
            reading.truncate(end);
        }
    }
    assert_eq!(read, expected, "{text}");
}

#[test]
fn dht_tester() {
    check(
        "DHTxx test!\r\n\
         Humidity: 56.00%  Temperature: 24.50°C 76.10°F  Heat index: 24.47°C 76.04°F\r\n\
         Failed to read from DHT sensor!\r\n\
         Humidity: 56.10%  Temperature: -0.50°C, 31.10°F  Heat index: -0.47°C, 31.15°F\r\n",
        &[
            "Humidity=56 %, Temperature=24.5 °C, Temperature_2=76.1 °F, Heat index=24.47 °C, Heat index_2=76.04 °F",
            "Humidity=56.1 %, Temperature=-0.5 °C, Temperature_2=31.1 °F, Heat index=-0.47 °C, Heat index_2=31.15 °F",
        ],
    );
    // An older one, with tabs; its reading of a sensor that is not there is nan.
    check("Humidity: 40.10 %\tTemperature: 21.30 *C \r\n", &["Humidity=40.1 %, Temperature=21.3 °C"]);
    check(
        "Humidity: nan %\tTemperature: nan *C\r\n",
        &["the device has no value (`Humidity: nan %\\tTemperature: nan *C`): is its sensor connected?"],
    );
}

#[test]
fn dht_unified_sensor() {
    check(
        "DHTxx Unified Sensor Example\n------------------------------------\nTemperature: 21.00°C\nHumidity: 40.00%\n\
         Error reading temperature!\nTemperature: 21.10 *C\n",
        &["Temperature=21 °C", "Humidity=40 %", "Temperature=21.1 °C"],
    );
}

#[test]
fn dallas_temperature() {
    check(
        "Dallas Temperature IC Control Library Demo\nRequesting temperatures...DONE\n\
         Temperature for the device 1 (index 0) is: 21.06\nTemp C: 21.06 Temp F: 69.91\n",
        &["Temperature for the device 1 (index 0) is=21.06", "Temp C=21.06, Temp F=69.91"],
    );
}

#[test]
fn bme280() {
    check(
        "BME280 test\n-- Default Test --\n\nTemperature = 21.48 °C\nPressure = 1004.19 hPa\n\
         Approx. Altitude = 75.90 m\nHumidity = 44.02 %\n\nTemperature = 21.50*C\nPressure = 1004.20hPa\nGas = 12.05 KOhms\n",
        &[
            "Temperature=21.48 °C",
            "Pressure=1004.19 hPa",
            "Approx. Altitude=75.9 m",
            "Humidity=44.02 %",
            "Temperature=21.5 °C",
            "Pressure=1004.2 hPa",
            "Gas=12.05 kΩ",
        ],
    );
}

#[test]
fn bmp085() {
    check(
        "Temperature = 21.50 *C\nPressure = 100419 Pa\nAltitude = 75.90 meters\n\
         Pressure at sealevel (calculated) = 101325 Pa\nReal altitude = 76.10 meters\n",
        &[
            "Temperature=21.5 °C",
            "Pressure=100419 Pa",
            "Altitude=75.9 m",
            "Pressure at sealevel (calculated)=101325 Pa",
            "Real altitude=76.1 m",
        ],
    );
}

#[test]
fn sht31_and_scd30() {
    check("Temp *C = 21.06\t\tHum. % = 40.12\n", &["Temp=21.06 °C, Hum=40.12 %"]);
    check("Temperature: 21.06 degrees C\nCO2: 612.000 ppm\n", &["Temperature=21.06 °C", "CO2=612 ppm"]);
}

#[test]
fn ina219() {
    check(
        "Bus Voltage:   5.02 V\nShunt Voltage: 0.12 mV\nCurrent:       1.20 mA\nPower:         6.00 mW\n",
        &["Bus Voltage=5.02 V", "Shunt Voltage=0.12 mV", "Current=1.2 mA", "Power=6 mW"],
    );
}

#[test]
fn mpu6050() {
    check(
        "Acceleration X: 0.12, Y: -0.31, Z: 9.79 m/s^2\nTemperature: 27.12 degC\n\
         Acceleration x: 12 mg \ty: -31 mg \tz: 1001 mg\n",
        &[
            "Acceleration X=0.12, Y=-0.31, Z=9.79 m/s²",
            "Temperature=27.12 °C",
            "Acceleration x=12 mg, y=-31 mg, z=1001 mg",
        ],
    );
    check(
        "AcX = -432 | AcY = 88 | AcZ = 16504 | Tmp = 27.36 | GyX = -113\n",
        &["AcX=-432, AcY=88, AcZ=16504, Tmp=27.36, GyX=-113"],
    );
}

#[test]
fn others() {
    check("one reading:\t123.4\t| average:\t123.51\n", &["one reading=123.4, average=123.51"]);
    check("sensor = 512\t output = 128\n", &["sensor=512, output=128"]);
    check("Ping: 12cm\nDistance: 12[cm]\nDistance: 12 cm\n", &["Ping=12 cm", "Distance=12 cm", "Distance=12 cm"]);
    check("Light: 54.17 lx\nLux: 54\n", &["Light=54.17 lx", "Lux=54"]);
    check("CO2: 400ppm, TVOC: 0ppb\n", &["CO2=400 ppm, TVOC=0 ppb"]);
    check("Voltage: 3.30V\nMoisture: 41%\n", &["Voltage=3.3 V", "Moisture=41 %"]);
}
