//! Whose a file is, by name: numbers of users differ from one machine to the next.

use std::fs;
use std::io;
use std::path::Path;

use tar::Header;

/// The longest name that an entry's header has room for, with the byte that ends it.
const MAX_NAME: usize = 31;

/// User and group of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    user: String,
    group: String,
}

impl Owner {
    /// Of a file.
    #[must_use]
    pub(super) fn of(meta: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let name = |list, id| name_of(Path::new(list), id).unwrap_or_default();
        Self { user: name("/etc/passwd", meta.uid()), group: name("/etc/group", meta.gid()) }
    }

    /// Writes it into an entry's header.
    pub(super) fn put(&self, header: &mut Header) -> io::Result<()> {
        header.set_uid(0);
        header.set_gid(0);
        header.set_username(&self.user)?;
        header.set_groupname(&self.group)
    }

    /// Reads it from an entry's header.
    pub(super) fn read(header: &Header) -> Self {
        let text = |name: Result<Option<&str>, _>| name.ok().flatten().unwrap_or_default().to_owned();
        Self { user: text(header.username()), group: text(header.groupname()) }
    }

    /// Their numbers on this machine; `None`: it does not know them.
    pub(super) fn here(&self) -> (Option<u32>, Option<u32>) {
        (number_of(Path::new("/etc/passwd"), &self.user), number_of(Path::new("/etc/group"), &self.group))
    }
}

/// passwd(5) and group(5): the name is the first field, the number the third.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?))
    })
}

fn name_of(list: &Path, id: u32) -> Option<String> {
    let text = fs::read_to_string(list).ok()?;
    let found = entries(&text).find(|(_, known)| *known == id).map(|(name, _)| name.to_owned());
    found.filter(|name| name.len() <= MAX_NAME)
}

fn number_of(list: &Path, name: &str) -> Option<u32> {
    if name.is_empty() {
        return None;
    }
    let text = fs::read_to_string(list).ok()?;
    entries(&text).find(|(known, _)| *known == name).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("passwd");
        fs::write(&list, "root:x:0:0:root:/:/bin/sh\nspoilt\nvigie:x:997:995::/var/lib/vigie:/usr/sbin/nologin\n")
            .expect("a file");
        assert_eq!(name_of(&list, 997).as_deref(), Some("vigie"));
        assert_eq!(number_of(&list, "vigie"), Some(997));
        assert_eq!((name_of(&list, 5), number_of(&list, "spoilt"), number_of(&list, "")), (None, None, None));
    }
}
