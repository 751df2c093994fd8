//! Columns and sizes for people.

/// A table: its columns are as wide as what is in them. The last cell of a row may be longer: nothing follows it.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let inner = rows.iter().filter(|row| column + 1 < row.len()).filter_map(|row| row.get(column));
        inner.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let gap = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', gap));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes for people.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => {
            let tenths = count.saturating_mul(10) / size;
            if tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            }
        }
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, table};

    #[test]
    fn bytes_are_short_and_never_rounded_up() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1_100_000, "1 MiB"), (256 << 20, "256 MiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn columns_align_by_characters_not_bytes() {
        let rows = [vec!["été".to_owned(), "a".to_owned()], vec!["x".to_owned(), "b".to_owned()]];
        assert_eq!(table(&rows), "été  a\nx    b\n");
    }

    #[test]
    fn a_long_last_cell_does_not_widen_its_column() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rows = [row(&["a", "b", "c"]), row(&["a", "FAULT: a long story"])];
        assert_eq!(table(&rows), "a  b  c\na  FAULT: a long story\n");
    }
}
