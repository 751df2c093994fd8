//! `sparkplug-b`: what a device measures, as Sparkplug B has it (DDATA; specification 3.0, 6.4.21).
//!
//! A metric is a quantity, under the alias that the device's birth gave it; where the host does not know it, under its
//! name. What belongs to the backlog is marked as historical, and so is what is older than the value that the birth had. The
//! births themselves, and which message has which sequence number, are the [node's](crate::uplink::sparkplug).

use std::cell::RefCell;
use std::rc::Rc;

use bytes::BytesMut;

use crate::reading::Descriptor;
use crate::uplink::dating::Date;
use crate::uplink::sparkplug::book::{milliseconds, scalar};
use crate::uplink::sparkplug::{Book, wire};

use super::form::{Element, Form, Ready, Unfit};

/// The form.
#[derive(Debug, Default)]
pub(super) struct Sparkplug {
    book: Rc<RefCell<Book>>,
}

impl Form for Sparkplug {
    fn prepare(&self, _: &Descriptor) -> Box<dyn Ready> {
        Box::new(Metrics { book: Rc::clone(&self.book) })
    }

    fn write(&self, elements: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        self.book.borrow().put_head(out);
        elements.iter().try_for_each(|element| element.write(&[], out))
    }

    fn admits(&self, element: &Element<'_>) -> Result<(), Unfit> {
        element.is_dated_or_live()
    }

    fn holds_bytes(&self) -> bool {
        true
    }

    fn book(&self) -> Option<&Rc<RefCell<Book>>> {
        Some(&self.book)
    }
}

/// The metrics of a sensor.
#[derive(Debug)]
struct Metrics {
    book: Rc<RefCell<Book>>,
}

impl Ready for Metrics {
    fn write(&self, element: &Element<'_>, _: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        let book = &mut *self.book.borrow_mut();
        let (_, seq) = element.id;
        let time = match element.date {
            Date::Wall(time) => Some(milliseconds(time)),
            Date::Uptime(..) => None,
        };
        for (quantity, value) in element.quantities() {
            let alias = book.tell(&element.descriptor().sensor, &quantity.name, seq, time, element.backlog);
            let (datatype, value) = scalar(value);
            wire::put_metric(
                out,
                &wire::Metric {
                    name: alias.is_none().then_some(&quantity.name),
                    alias: alias.map(|alias| alias.number),
                    time,
                    datatype: alias.is_none().then_some(datatype),
                    historical: alias.map_or(element.backlog, |alias| alias.historical),
                    unit: None,
                    content_type: None,
                    value,
                },
            );
        }
        Ok(())
    }
}
