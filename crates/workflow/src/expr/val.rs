//! The values that expressions work on and that flow between tasks: JSON with shared parts, so that passing a value
//! on costs nothing, and with size and depth kept beside every array and object, so that asking costs nothing either.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::meter::{self, Limit, VALUE_BYTES_MAX, VALUE_DEPTH_MAX};

/// Keys and values of an object, in the order they were written.
pub(super) type Members = IndexMap<Arc<str>, Val>;

/// A JSON value that is cheap to clone.
#[derive(Clone, Debug, Default)]
pub enum Val {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above the range of `Int`; arithmetic makes a float of it.
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Str(Arc<str>),
    /// An array.
    Arr(Arc<Array>),
    /// An object.
    Obj(Arc<Object>),
}

/// An array with its size.
#[derive(Clone, Debug, Default)]
pub struct Array {
    items: Vec<Val>,
    bytes: u64,
    depth: u32,
}

/// An object with its size.
#[derive(Clone, Debug, Default)]
pub struct Object {
    members: Members,
    bytes: u64,
    depth: u32,
}

const SCALAR_BYTES: u64 = 16;
const MEMBER_BYTES: u64 = 32;

impl Array {
    pub(super) fn items(&self) -> &[Val] {
        &self.items
    }

    /// Adds an item without counting it.
    fn push(&mut self, item: Val) {
        self.bytes = self.bytes.saturating_add(item.bytes());
        self.depth = self.depth.max(item.depth() + 1);
        self.items.push(item);
    }

    /// Takes an item out, to change it alone; its place holds `null` until it is put back. `None` is outside.
    pub(super) fn take(&mut self, index: usize) -> Option<Val> {
        let item = std::mem::take(self.items.get_mut(index)?);
        self.bytes = self.bytes.saturating_sub(item.bytes()).saturating_add(SCALAR_BYTES);
        Some(item)
    }

    /// Replaces an item, or removes it; the array grows with `null` up to its place.
    pub(super) fn put(&mut self, index: usize, item: Option<Val>) {
        while self.items.len() <= index {
            self.push(Val::Null);
        }
        self.bytes = self.bytes.saturating_sub(self.items[index].bytes());
        match item {
            Some(item) => {
                self.bytes = self.bytes.saturating_add(item.bytes());
                self.depth = self.depth.max(item.depth() + 1);
                self.items[index] = item;
            }
            None => drop(self.items.remove(index)),
        }
    }

    /// Replaces a part.
    pub(super) fn splice(&mut self, place: std::ops::Range<usize>, new: &[Val]) {
        for item in new {
            self.bytes = self.bytes.saturating_add(item.bytes());
            self.depth = self.depth.max(item.depth() + 1);
        }
        for old in self.items.splice(place, new.iter().cloned()) {
            self.bytes = self.bytes.saturating_sub(old.bytes());
        }
    }
}

impl Object {
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Adds or replaces a member without counting it.
    fn insert(&mut self, key: Arc<str>, value: Val) {
        let key_bytes = MEMBER_BYTES + key.len() as u64;
        self.bytes = self.bytes.saturating_add(value.bytes());
        self.depth = self.depth.max(value.depth() + 1);
        match self.members.insert(key, value) {
            Some(old) => self.bytes = self.bytes.saturating_sub(old.bytes()),
            None => self.bytes = self.bytes.saturating_add(key_bytes),
        }
    }

    /// Takes a value out, to change it alone; its key holds `null` until it is put back.
    pub(super) fn take(&mut self, key: &str) -> Option<Val> {
        let value = std::mem::take(self.members.get_mut(key)?);
        self.bytes = self.bytes.saturating_sub(value.bytes()).saturating_add(SCALAR_BYTES);
        Some(value)
    }

    /// Adds or replaces a member, or removes it.
    pub(super) fn put(&mut self, key: &Arc<str>, value: Option<Val>) {
        match value {
            Some(value) => self.insert(Arc::clone(key), value),
            None => {
                if let Some(old) = self.members.shift_remove(key) {
                    self.bytes = self.bytes.saturating_sub(old.bytes() + MEMBER_BYTES + key.len() as u64);
                }
            }
        }
    }
}

/// Refuses values that are too large or too deep, and counts the new ones.
fn admit(bytes: u64, depth: u32, new_bytes: u64) -> Result<(), Limit> {
    if depth > VALUE_DEPTH_MAX {
        return Err(meter::stop(Limit::ValueDepth));
    }
    if bytes > VALUE_BYTES_MAX {
        return Err(meter::stop(Limit::ValueSize));
    }
    meter::allocate(new_bytes)
}

impl Val {
    /// Text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Str(text.into())
    }

    /// The float, or the whole number it stands for.
    pub(super) fn number(float: f64) -> Self {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if float.fract() == 0.0 && float.abs() < EXACT { Self::Int(float as i64) } else { Self::Float(float) }
    }

    /// Estimated bytes in memory and as JSON.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Str(text) => SCALAR_BYTES + text.len() as u64,
            Self::Arr(array) => SCALAR_BYTES + array.bytes,
            Self::Obj(object) => SCALAR_BYTES + object.bytes,
            _ => SCALAR_BYTES,
        }
    }

    /// Levels of arrays and objects.
    pub fn depth(&self) -> u32 {
        match self {
            Self::Arr(array) => array.depth.max(1),
            Self::Obj(object) => object.depth.max(1),
            _ => 0,
        }
    }

    /// An array, counted.
    pub(super) fn array(items: impl IntoIterator<Item = Self>) -> Result<Self, Limit> {
        let mut array = Array::default();
        for item in items {
            // Checked for every item, so that an endless source ends.
            admit(array.bytes, item.depth() + 1, SCALAR_BYTES)?;
            array.push(item);
        }
        Ok(Self::Arr(Arc::new(array)))
    }

    /// An object, counted.
    pub(super) fn object(members: impl IntoIterator<Item = (Arc<str>, Self)>) -> Result<Self, Limit> {
        let mut object = Object::default();
        for (key, value) in members {
            admit(object.bytes, value.depth() + 1, MEMBER_BYTES + key.len() as u64)?;
            object.insert(key, value);
        }
        Ok(Self::Obj(Arc::new(object)))
    }

    /// A new text, counted.
    pub(super) fn new_text(text: impl Into<Arc<str>>) -> Result<Self, Limit> {
        let text = text.into();
        admit(text.len() as u64, 0, SCALAR_BYTES + text.len() as u64)?;
        Ok(Self::Str(text))
    }

    /// An object with these members, in their order: for data that the interpreter itself makes.
    pub fn from_members<K: Into<Arc<str>>>(members: impl IntoIterator<Item = (K, Self)>) -> Self {
        let mut object = Object::default();
        for (key, value) in members {
            object.insert(key.into(), value);
        }
        Self::Obj(Arc::new(object))
    }

    /// An array of these items: for data that the interpreter itself makes.
    pub fn from_items(items: impl IntoIterator<Item = Self>) -> Self {
        let mut array = Array::default();
        for item in items {
            array.push(item);
        }
        Self::Arr(Arc::new(array))
    }

    /// The member of an object; `None` for anything else.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Obj(object) => object.members.get(key),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn as_items(&self) -> Option<&[Self]> {
        match self {
            Self::Arr(array) => Some(&array.items),
            _ => None,
        }
    }

    /// The members of an object, in order.
    pub fn as_members(&self) -> Option<impl Iterator<Item = (&Arc<str>, &Self)>> {
        match self {
            Self::Obj(object) => Some(object.members.iter()),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it counts as true: neither `null` nor `false`.
    pub fn is_truthy(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Unsigned(_) | Self::Float(_) => "a number",
            Self::Str(_) => "a string",
            Self::Arr(_) => "an array",
            Self::Obj(_) => "an object",
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Unsigned(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// An array to change: copied, and then counted, unless nobody else has it.
    fn own_array(array: Arc<Array>) -> Result<Array, Limit> {
        Arc::try_unwrap(array).or_else(|shared| {
            meter::allocate(SCALAR_BYTES * shared.items.len() as u64)?;
            Ok((*shared).clone())
        })
    }

    /// An object to change: copied, and then counted, unless nobody else has it.
    fn own_object(object: Arc<Object>) -> Result<Object, Limit> {
        Arc::try_unwrap(object).or_else(|shared| {
            meter::allocate(MEMBER_BYTES * shared.members.len() as u64)?;
            Ok((*shared).clone())
        })
    }

    /// Changes an array in place, if nobody else has it.
    pub(super) fn change_array<T>(array: Arc<Array>, change: impl FnOnce(&mut Array) -> T) -> Result<(Self, T), Limit> {
        let mut array = Self::own_array(array)?;
        let done = change(&mut array);
        admit(array.bytes, array.depth, 0)?;
        Ok((Self::Arr(Arc::new(array)), done))
    }

    /// Changes an object in place, if nobody else has it.
    pub(super) fn change_object<T>(
        object: Arc<Object>,
        change: impl FnOnce(&mut Object) -> T,
    ) -> Result<(Self, T), Limit> {
        let mut object = Self::own_object(object)?;
        let done = change(&mut object);
        admit(object.bytes, object.depth, 0)?;
        Ok((Self::Obj(Arc::new(object)), done))
    }

    /// Adds to the end of an array in time of what is added, if nobody else has it.
    pub(super) fn append(array: Arc<Array>, more: &[Val]) -> Result<Self, Limit> {
        let mut array = Self::own_array(array)?;
        for item in more {
            admit(array.bytes, item.depth() + 1, SCALAR_BYTES)?;
            array.push(item.clone());
        }
        Ok(Self::Arr(Arc::new(array)))
    }

    /// Adds or replaces members in time of what is added, if nobody else has the object.
    pub(super) fn merge(object: Arc<Object>, more: &Object) -> Result<Self, Limit> {
        let mut object = Self::own_object(object)?;
        for (key, value) in &more.members {
            admit(object.bytes, value.depth() + 1, MEMBER_BYTES)?;
            object.insert(Arc::clone(key), value.clone());
        }
        Ok(Self::Obj(Arc::new(object)))
    }

    /// As plain JSON. Numbers that JSON has not become `null` or the nearest one.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(number) => Value::from(*number),
            Self::Unsigned(number) => Value::from(*number),
            Self::Float(number) => float_to_json(*number),
            Self::Str(text) => Value::String(text.to_string()),
            Self::Arr(array) => Value::Array(array.items.iter().map(Self::to_json).collect()),
            Self::Obj(object) => {
                Value::Object(object.members.iter().map(|(key, value)| (key.to_string(), value.to_json())).collect())
            }
        }
    }
}

fn float_to_json(number: f64) -> Value {
    if number.is_nan() {
        return Value::Null;
    }
    Value::from(number.clamp(f64::MIN, f64::MAX))
}

impl From<&Value> for Val {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), _, _) => Self::Int(number),
                (None, Some(number), _) => Self::Unsigned(number),
                (None, None, number) => Self::Float(number.unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::text(text.as_str()),
            Value::Array(items) => Self::from_items(items.iter().map(Self::from)),
            Value::Object(members) => {
                Self::from_members(members.iter().map(|(key, value)| (key.as_str(), Self::from(value))))
            }
        }
    }
}

impl From<Value> for Val {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl Serialize for Val {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Unsigned(number) => serializer.serialize_u64(*number),
            Self::Float(number) => float_to_json(*number).serialize(serializer),
            Self::Str(text) => serializer.serialize_str(text),
            Self::Arr(array) => serializer.collect_seq(&array.items),
            Self::Obj(object) => serializer.collect_map(object.members.iter().map(|(key, value)| (&**key, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Val {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

/// Longest text of a value in a message.
const DISPLAY_BYTES_MAX: usize = 120;

/// JSON, cut where it gets long: for messages.
impl fmt::Display for Val {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        show(self, &mut text);
        if text.len() > DISPLAY_BYTES_MAX {
            return write!(formatter, "{}…", cut(&text, DISPLAY_BYTES_MAX));
        }
        formatter.write_str(&text)
    }
}

/// The longest start of a text that has at most so many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

fn show(value: &Val, text: &mut String) {
    if text.len() > DISPLAY_BYTES_MAX {
        return;
    }
    match value {
        Val::Str(string) => {
            text.push_str(&Value::from(cut(string, DISPLAY_BYTES_MAX + 1)).to_string());
        }
        Val::Arr(array) => {
            text.push('[');
            for (index, item) in array.items.iter().take(DISPLAY_BYTES_MAX).enumerate() {
                if index > 0 {
                    text.push(',');
                }
                show(item, text);
            }
            text.push(']');
        }
        Val::Obj(object) => {
            text.push('{');
            for (index, (key, value)) in object.members.iter().take(DISPLAY_BYTES_MAX).enumerate() {
                if index > 0 {
                    text.push(',');
                }
                show(&Val::Str(Arc::clone(key)), text);
                text.push(':');
                show(value, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_json().to_string()),
    }
}
