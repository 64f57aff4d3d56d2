//! What jaq asks of a value type: indexing, iterating, updating, and the accessors of its standard library.

use std::ops::Range;
use std::sync::Arc;

use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::path::Opt;
use jaq_core::{Exn, ValX};

use super::arithmetic::{Error, ValR};
use super::meter;
use super::val::{Array, Object, Val};

impl From<bool> for Val {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<isize> for Val {
    fn from(number: isize) -> Self {
        Self::Int(number as i64)
    }
}

impl From<usize> for Val {
    fn from(number: usize) -> Self {
        i64::try_from(number).map_or(Self::Unsigned(number as u64), Self::Int)
    }
}

impl From<f64> for Val {
    fn from(number: f64) -> Self {
        Self::number(number)
    }
}

impl From<String> for Val {
    fn from(text: String) -> Self {
        // Cannot fail here; a limit reached is kept and fails what follows.
        Self::new_text(text).unwrap_or_default()
    }
}

impl From<Range<Option<Val>>> for Val {
    fn from(range: Range<Option<Val>>) -> Self {
        let bounds = [("start", range.start), ("end", range.end)];
        Self::from_members(bounds.into_iter().map(|(key, bound)| (key, bound.unwrap_or_default())))
    }
}

impl FromIterator<Val> for Val {
    fn from_iter<T: IntoIterator<Item = Self>>(items: T) -> Self {
        Self::array(items).unwrap_or_default()
    }
}

/// A bound of a slice: counted from the end if negative, cut to the length.
fn bound(value: Option<&Val>, length: usize, default: usize, up: bool) -> Result<usize, Error> {
    let Some(value) = value.filter(|value| !matches!(value, Val::Null)) else { return Ok(default) };
    let number = value.as_float().ok_or_else(|| Error::typ(value.clone(), "number"))?;
    let number = if up { number.ceil() } else { number.floor() };
    let absolute = if number < 0.0 { number + length as f64 } else { number };
    Ok(absolute.clamp(0.0, length as f64) as usize)
}

fn bounds(range: &Range<Option<&Val>>, length: usize) -> Result<Range<usize>, Error> {
    let start = bound(range.start, length, 0, false)?;
    let end = bound(range.end, length, length, true)?;
    Ok(start..end.max(start))
}

/// The byte range of a range of characters.
fn characters(text: &str, range: &Range<Option<&Val>>) -> Result<Range<usize>, Error> {
    meter::step(text.len() as u64 / 64)?;
    let range = bounds(range, text.chars().count())?;
    let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
    Ok(byte(range.start)..byte(range.end))
}

/// An index of an array as jq reads it; `None` is outside.
fn position(index: f64, length: usize) -> Option<usize> {
    let whole = index.floor();
    let absolute = if whole < 0.0 { whole + length as f64 } else { whole };
    if absolute >= 0.0 && absolute < length as f64 { Some(absolute as usize) } else { None }
}

fn indices_of(array: &Array, wanted: &[Val]) -> ValR {
    let windows = array.items().windows(wanted.len().max(1)).enumerate();
    let found = windows.filter(|(_, window)| !wanted.is_empty() && *window == wanted);
    Ok(Val::array(found.map(|(index, _)| Val::from(index)))?)
}

impl Val {
    /// `.[index]`.
    pub(super) fn index_by(&self, index: &Self) -> ValR {
        meter::step(1)?;
        Ok(match (self, index) {
            (Self::Null, Self::Str(_) | Self::Int(_) | Self::Float(_) | Self::Null | Self::Obj(_)) => Self::Null,
            (Self::Obj(object), Self::Str(key)) => object.members().get(key).cloned().unwrap_or_default(),
            (Self::Arr(array), Self::Int(_) | Self::Float(_) | Self::Unsigned(_)) => {
                let items = array.items();
                let found = position(index.as_float().unwrap_or(f64::NAN), items.len());
                found.and_then(|found| items.get(found)).cloned().unwrap_or_default()
            }
            (Self::Arr(array), Self::Arr(wanted)) => indices_of(array, wanted.items())?,
            (Self::Arr(_) | Self::Str(_), Self::Obj(range)) => {
                let part = |key| range.members().get(key);
                jaq_core::ValT::range(self.clone(), part("start")..part("end"))?
            }
            _ => return Err(Error::index(self.clone(), index.clone())),
        })
    }

    fn not_iterable(self) -> Error {
        Error::typ(self, "iterable (array or object)")
    }
}

/// The first output of an update, if there is one.
fn first<'a>(mut outputs: impl Iterator<Item = ValX<'a, Val>>) -> Result<Option<Val>, Exn<'a, Val>> {
    outputs.next().transpose()
}

fn update_member<'a, I: Iterator<Item = ValX<'a, Val>>>(
    object: Arc<Object>,
    key: &Arc<str>,
    update: impl Fn(Val) -> I,
) -> ValX<'a, Val> {
    let (value, done) = Val::change_object(object, |object| {
        let old = object.take(key).unwrap_or_default();
        object.put(key, first(update(old))?);
        Ok(())
    })
    .map_err(Error::from)?;
    done.map(|()| value)
}

fn update_item<'a, I: Iterator<Item = ValX<'a, Val>>>(
    array: Arc<Array>,
    index: f64,
    update: impl Fn(Val) -> I,
) -> ValX<'a, Val> {
    let length = array.items().len();
    let place = match position(index, length) {
        Some(place) => place,
        None if index >= 0.0 => index as usize,
        None => return Err(Error::str("cannot set an item before the first").into()),
    };
    let padding = (place + 1).saturating_sub(length) as u64;
    meter::allocate(padding.saturating_mul(16)).map_err(Error::from)?;
    let (value, done) = Val::change_array(array, |array| {
        let old = array.take(place).unwrap_or_default();
        array.put(place, first(update(old))?);
        Ok(())
    })
    .map_err(Error::from)?;
    done.map(|()| value)
}

impl jaq_core::ValT for Val {
    fn from_num(text: &str) -> ValR {
        text.parse::<f64>().map(Self::number).map_err(|_| Error::str(format_args!("`{text}` is not a number")))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(members: I) -> ValR {
        let mut keyed = Vec::new();
        for (key, value) in members {
            meter::step(1)?;
            match key {
                Self::Str(key) => keyed.push((key, value)),
                key => return Err(Error::str(format_args!("an object key must be a string, not {key}"))),
            }
        }
        Ok(Self::object(keyed)?)
    }

    fn key_values(self) -> BoxIter<'static, jaq_core::ValR<(Self, Self), Self>> {
        match self {
            Self::Arr(array) => Box::new((0..array.items().len()).map(move |index| {
                meter::step(1)?;
                Ok((Self::from(index), array.items()[index].clone()))
            })),
            Self::Obj(object) => Box::new((0..object.members().len()).map_while(move |index| {
                let (key, value) = object.members().get_index(index)?;
                Some(meter::step(1).map_err(Error::from).map(|()| (Self::Str(Arc::clone(key)), value.clone())))
            })),
            value => box_once(Err(value.not_iterable())),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR>> {
        match self {
            Self::Arr(array) => Box::new((0..array.items().len()).map(move |index| {
                meter::step(1)?;
                Ok(array.items()[index].clone())
            })),
            Self::Obj(object) => Box::new((0..object.members().len()).map_while(move |index| {
                let (_, value) = object.members().get_index(index)?;
                Some(meter::step(1).map_err(Error::from).map(|()| value.clone()))
            })),
            value => {
                let counted = meter::step(1).map_err(Error::from);
                box_once(counted.and_then(|()| Err(value.not_iterable())))
            }
        }
    }

    fn index(self, index: &Self) -> ValR {
        self.index_by(index)
    }

    fn range(self, range: Range<Option<&Self>>) -> ValR {
        match &self {
            Self::Null => Ok(Self::Null),
            Self::Str(text) => Ok(Self::new_text(&text[characters(text, &range)?])?),
            Self::Arr(array) => {
                let range = bounds(&range, array.items().len())?;
                Ok(Self::array(array.items()[range].iter().cloned())?)
            }
            _ => Err(Error::typ(self, "rangeable (array or string)")),
        }
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        opt: Opt,
        update: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        match self {
            Self::Arr(array) => {
                let mut updated = Vec::new();
                for item in array.items() {
                    meter::step(1).map_err(Error::from)?;
                    for output in update(item.clone()) {
                        updated.push(output?);
                    }
                }
                Ok(Self::array(updated).map_err(Error::from)?)
            }
            Self::Obj(object) => {
                let mut updated = Vec::new();
                for (key, value) in object.members() {
                    meter::step(1).map_err(Error::from)?;
                    if let Some(value) = first(update(value.clone()))? {
                        updated.push((Arc::clone(key), value));
                    }
                }
                Ok(Self::object(updated).map_err(Error::from)?)
            }
            value => opt.fail(value, |value| Exn::from(value.not_iterable())),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        index: &Self,
        opt: Opt,
        update: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        meter::step(1).map_err(Error::from)?;
        match (self, index) {
            (Self::Obj(object), Self::Str(key)) => update_member(object, key, update),
            (Self::Null, Self::Str(key)) => update_member(Arc::default(), key, update),
            (Self::Arr(array), Self::Int(_) | Self::Float(_)) => {
                update_item(array, index.as_float().unwrap_or(f64::NAN), update)
            }
            (Self::Null, Self::Int(_) | Self::Float(_)) => {
                update_item(Arc::default(), index.as_float().unwrap_or(f64::NAN), update)
            }
            (value @ (Self::Arr(_) | Self::Str(_)), Self::Obj(range)) => {
                let part = |key| range.members().get(key);
                value.map_range(part("start")..part("end"), opt, update)
            }
            (value, _) => opt.fail(value, |value| Exn::from(Error::index(value, index.clone()))),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        range: Range<Option<&Self>>,
        opt: Opt,
        update: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        match self {
            Self::Arr(array) => {
                let place = bounds(&range, array.items().len())?;
                let part = Self::array(array.items()[place.clone()].iter().cloned()).map_err(Error::from)?;
                let new = match first(update(part))? {
                    None => Arc::default(),
                    Some(Self::Arr(new)) => new,
                    Some(other) => return Err(Error::typ(other, "array").into()),
                };
                let (value, ()) =
                    Self::change_array(array, |array| array.splice(place, new.items())).map_err(Error::from)?;
                Ok(value)
            }
            value => opt.fail(value, |value| Exn::from(Error::typ(value, "array"))),
        }
    }

    fn as_bool(&self) -> bool {
        self.is_truthy()
    }

    fn into_string(self) -> Self {
        match self {
            Self::Str(_) => self,
            value => value.to_json_text().unwrap_or_default(),
        }
    }
}

impl Val {
    /// The JSON text of a value, as a counted value.
    pub(super) fn to_json_text(&self) -> Result<Self, meter::Limit> {
        // Counted before it is made: shared parts may be small in memory and huge as text.
        meter::allocate(self.bytes())?;
        Self::new_text(self.to_json().to_string())
    }
}

impl jaq_std::ValT for Val {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        match self {
            Self::Arr(array) => {
                // Sorting and grouping read every item: n log n at most, counted as such.
                let count = array.items().len() as u64;
                let _ = meter::step(count.saturating_mul(u64::from(count.max(1).ilog2()) + 1) / 8);
                Ok(array.items().iter().cloned().collect())
            }
            value => Err(value),
        }
    }

    fn is_int(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Unsigned(_))
    }

    fn as_isize(&self) -> Option<isize> {
        match self {
            Self::Int(number) => isize::try_from(*number).ok(),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        self.as_float()
    }

    fn is_utf8_str(&self) -> bool {
        matches!(self, Self::Str(_))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        let text = self.as_text()?;
        let _ = meter::step(text.len() as u64 / 64);
        Some(text.as_bytes())
    }

    fn as_sub_str(&self, part: &[u8]) -> Self {
        Self::from_utf8_bytes(part.to_vec())
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Self::from(String::from_utf8_lossy(bytes.as_ref()).into_owned())
    }
}
