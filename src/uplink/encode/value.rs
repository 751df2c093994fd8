//! `value`: the value alone, as many a consumer wants it.
//!
//! A number as text in its shortest form, a switch as `true` or `false`, a text and bytes as they are. Unit and time are
//! not in it.

use bytes::{BufMut, BytesMut};

use crate::reading::{Descriptor, Value};

use super::form::{Element, Form, Ready, Unfit};
use super::text::{put_base64, put_value};

/// The form.
#[derive(Debug)]
pub(super) struct Bare;

impl Form for Bare {
    fn prepare(&self, _: &Descriptor) -> Box<dyn Ready> {
        Box::new(Self)
    }

    fn leaves_bytes_alone(&self) -> bool {
        true
    }
}

impl Ready for Bare {
    fn write(&self, element: &Element<'_>, _: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        match element.values {
            [(_, Value::Text(text))] => out.put_slice(text.as_bytes()),
            [(_, Value::Bytes(bytes))] => put_base64(out, bytes),
            [(_, value)] => put_value(out, value),
            _ => return Err("it has several values".into()),
        }
        Ok(())
    }
}
