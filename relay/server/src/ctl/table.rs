/// Names and values in two columns.
pub(super) fn pairs<const N: usize>(pairs: [(&str, String); N]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Rows below their columns' names; numbers and their names stand to the right.
pub(super) fn rows<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> String {
    let is_number = |at: usize| {
        rows.iter().all(|row| row[at].bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    };
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].len());
        cells.chain([names[at].len()]).max().unwrap_or_default()
    };
    let columns: [(usize, bool); N] = std::array::from_fn(|at| (width(at), is_number(at)));
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(columns).map(|(cell, (width, is_number))| match is_number {
            true => format!("{cell:>width$}"),
            false => format!("{cell:width$}"),
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let body = rows.iter().map(|row| line(std::array::from_fn(|at| row[at].as_str())));
    std::iter::once(line(names)).chain(body).collect()
}

/// Milliseconds as seconds with one decimal.
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let cells = [["a", "7"], ["long one", "1234"]].map(|row| row.map(str::to_owned));
        assert_eq!(rows(["name", "n"], &cells), "name         n\na            7\nlong one  1234\n");
        assert_eq!(rows(["name", "n"], &[]), "name  n\n");
        assert_eq!(seconds(12_345), "12.3");
    }
}
