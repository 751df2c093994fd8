//! Rows as text: CSV for programs, CSV for a French Excel, JSON.

use std::io::{self, Write};

use csv::{Terminator, WriterBuilder};
use jiff::tz::TimeZone;

use super::when::{local, zone_name};
use super::{Cell, Place, Row, utc};

/// How rows are written.
#[derive(Clone, Debug)]
pub enum Format {
    /// Comma, point, times in UTC (RFC 4180 but for the line's end, RFC 3339).
    Csv,
    /// As an Excel in France opens it by a double click: semicolon, decimal comma, local times, a mark of UTF-8.
    FrenchCsv(TimeZone),
    /// One object a line.
    Json,
}

/// Columns of a table.
const COUNT: usize = 16;

/// Their names. New ones come at the end: programs may go by the place of those that there are.
const COLUMNS: [&str; COUNT] = [
    "time",
    "site",
    "room",
    "sensor",
    "quantity",
    "value",
    "unit",
    "id",
    "boot",
    "uptime",
    "topic",
    "latitude",
    "longitude",
    "altitude",
    "accuracy",
    "age",
];

/// The same for people who read French; the zone is added to the first.
const FRENCH_COLUMNS: [&str; COUNT] = [
    "date",
    "site",
    "pièce",
    "capteur",
    "grandeur",
    "valeur",
    "unité",
    "id",
    "démarrage",
    "secondes",
    "sujet",
    "latitude",
    "longitude",
    "altitude",
    "précision",
    "âge",
];

/// What tells Excel that a file is UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Writes rows; the head of a table goes before them.
#[derive(Debug)]
pub struct Writer<W: Write> {
    format: Format,
    out: Out<W>,
}

#[derive(Debug)]
enum Out<W: Write> {
    Table(Box<csv::Writer<W>>),
    Lines(io::BufWriter<W>),
}

impl<W: Write> Writer<W> {
    /// Begins.
    ///
    /// # Errors
    /// `out` takes nothing.
    pub fn new(format: Format, mut out: W) -> io::Result<Self> {
        let mut builder = WriterBuilder::new();
        let head = match &format {
            Format::Json => return Ok(Self { format, out: Out::Lines(io::BufWriter::new(out)) }),
            Format::Csv => COLUMNS.map(str::to_owned),
            Format::FrenchCsv(zone) => {
                out.write_all(BYTE_ORDER_MARK.as_bytes())?;
                builder.delimiter(b';').terminator(Terminator::CRLF);
                let mut head = FRENCH_COLUMNS.map(str::to_owned);
                head[0] = format!("date ({})", zone_name(zone));
                head
            }
        };
        let mut table = builder.from_writer(out);
        table.write_record(&head).map_err(plain)?;
        Ok(Self { format, out: Out::Table(Box::new(table)) })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn row(&mut self, row: &Row) -> io::Result<()> {
        match &mut self.out {
            Out::Lines(out) => {
                serde_json::to_writer(&mut *out, row)?;
                out.write_all(b"\n")
            }
            Out::Table(table) => {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                let number = |number: String| match self.format {
                    Format::FrenchCsv(_) => number.replace('.', ","),
                    _ => number,
                };
                let time = row.time.map(|time| match &self.format {
                    Format::FrenchCsv(zone) => {
                        local(time, zone).map_or_else(String::new, |at| at.strftime("%d/%m/%Y %H:%M:%S").to_string())
                    }
                    _ => utc(time),
                });
                let value = match &row.value {
                    Cell::Whole(_) | Cell::Number(_) => number(row.value.to_string()),
                    Cell::Text(text) => match self.format {
                        Format::FrenchCsv(_) => harmless(text),
                        _ => text.clone(),
                    },
                    other => other.to_string(),
                };
                let uptime = row.uptime.map(|uptime| number(format!("{uptime:.3}")));
                let place = |part: fn(&Place) -> Option<f64>| {
                    row.location.as_ref().and_then(part).map(|part| number(part.to_string())).unwrap_or_default()
                };
                let cells: [String; COUNT] = [
                    time.unwrap_or_default(),
                    text(&row.site),
                    text(&row.room),
                    text(&row.sensor),
                    text(&row.quantity),
                    value,
                    text(&row.unit),
                    row.id.clone(),
                    text(&row.boot),
                    uptime.unwrap_or_default(),
                    text(&row.topic),
                    place(|place| Some(place.latitude)),
                    place(|place| Some(place.longitude)),
                    place(|place| place.altitude),
                    place(|place| place.accuracy),
                    place(|place| place.age),
                ];
                table.write_record(&cells).map_err(plain)
            }
        }
    }

    /// Sees to it that everything is written.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Table(table) => table.flush(),
            Out::Lines(out) => out.flush(),
        }
    }
}

/// The error below the table's: whoever asks for its kind must see it.
fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// A text that Excel would take for a formula, and run, gets an apostrophe before it. Anybody may have sent it.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    fn row(value: Cell) -> Row {
        Row {
            id: "17-1042".into(),
            // 21 November 2026, 10:15:30.123 in UTC.
            time: Some(WallTime(1_795_256_130_123_000_000)),
            room: Some("salle à manger".into()),
            sensor: Some("météo".into()),
            quantity: Some("temperature".into()),
            value,
            unit: Some("°C".into()),
            ..Row::default()
        }
    }

    fn written(format: Format, rows: &[Row]) -> String {
        let mut out = Vec::new();
        let mut writer = Writer::new(format, &mut out).expect("memory takes everything");
        for row in rows {
            writer.row(row).expect("memory takes everything");
        }
        writer.flush().expect("memory takes everything");
        drop(writer);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_french_table_is_byte_for_byte_what_excel_expects() {
        let zone = TimeZone::get("Europe/Paris").expect("the system has time zones");
        let undated = Row {
            time: None,
            boot: Some("ab".into()),
            uptime: Some(12.5),
            value: Cell::Text("=cmd()".into()),
            ..row(Cell::Empty)
        };
        let place = Place { latitude: 47.5921, longitude: 0.9117, altitude: Some(85.0), ..Place::default() };
        let placed = Row { location: Some(place), ..row(Cell::Number(-21.5)) };
        let table = written(Format::FrenchCsv(zone), &[placed, row(Cell::Whole(3)), undated]);
        assert_eq!(
            table,
            "\u{feff}date (Europe/Paris);site;pièce;capteur;grandeur;valeur;unité;id;démarrage;secondes;sujet;latitude;longitude;altitude;précision;âge\r\n\
             21/11/2026 11:15:30;;salle à manger;météo;temperature;-21,5;°C;17-1042;;;;47,5921;0,9117;85;;\r\n\
             21/11/2026 11:15:30;;salle à manger;météo;temperature;3;°C;17-1042;;;;;;;;\r\n\
             ;;salle à manger;météo;temperature;'=cmd();°C;17-1042;ab;12,500;;;;;;\r\n"
        );
    }

    #[test]
    fn a_plain_table_quotes_what_it_must() {
        let place =
            Place { accuracy: Some(2.5), age: Some(0.25), latitude: 47.5921, longitude: 0.9117, altitude: None };
        let placed = Row { location: Some(place), ..row(Cell::Switch(true)) };
        let table = written(Format::Csv, &[row(Cell::Text("a,\"b\"\nc".into())), placed]);
        assert_eq!(
            table,
            "time,site,room,sensor,quantity,value,unit,id,boot,uptime,topic,latitude,longitude,altitude,accuracy,age\n\
             2026-11-21T10:15:30.123Z,,salle à manger,météo,temperature,\"a,\"\"b\"\"\nc\",°C,17-1042,,,,,,,,\n\
             2026-11-21T10:15:30.123Z,,salle à manger,météo,temperature,true,°C,17-1042,,,,47.5921,0.9117,,2.5,0.25\n"
        );
    }

    #[test]
    fn json_is_a_row_a_line() {
        let lines = written(Format::Json, &[row(Cell::Number(21.53))]);
        assert_eq!(
            lines,
            "{\"id\":\"17-1042\",\"time\":\"2026-11-21T10:15:30.123Z\",\"room\":\"salle à manger\",\
             \"sensor\":\"météo\",\"quantity\":\"temperature\",\"value\":21.53,\"unit\":\"°C\"}\n"
        );
    }
}
