//! `+ - * / %` of jq. Whole numbers stay whole where the result is; past their range they become floats.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::sync::Arc;

use jaq_core::ops::Math;

use super::meter::{self, Limit};
use super::val::{Object, Val};

/// A value, or an error that `try` can catch.
pub(super) type ValR = jaq_core::ValR<Val>;
/// An error that `try` can catch.
pub(super) type Error = jaq_core::Error<Val>;

impl From<Limit> for Error {
    fn from(limit: Limit) -> Self {
        Self::new(Val::text(limit.to_string()))
    }
}

fn wrong(left: Val, operation: Math, right: Val) -> ValR {
    Err(Error::math(left, operation, right))
}

/// Applies the whole-number form where both are and it does not overflow, else the float form.
fn numbers(left: &Val, right: &Val, whole: fn(i64, i64) -> Option<i64>, float: fn(f64, f64) -> f64) -> Option<Val> {
    if let (Val::Int(left), Val::Int(right)) = (left, right)
        && let Some(result) = whole(*left, *right)
    {
        return Some(Val::Int(result));
    }
    Some(Val::number(float(left.as_float()?, right.as_float()?)))
}

impl Add for Val {
    type Output = ValR;

    fn add(self, other: Self) -> ValR {
        meter::step(1)?;
        if let Some(sum) = numbers(&self, &other, i64::checked_add, |left, right| left + right) {
            return Ok(sum);
        }
        match (self, other) {
            (Self::Null, value) | (value, Self::Null) => Ok(value),
            (Self::Str(left), Self::Str(right)) => {
                let mut text = String::with_capacity(left.len() + right.len());
                text.push_str(&left);
                text.push_str(&right);
                Ok(Self::new_text(text)?)
            }
            (Self::Arr(left), Self::Arr(right)) => Ok(Self::append(left, right.items())?),
            (Self::Obj(left), Self::Obj(right)) => Ok(Self::merge(left, &right)?),
            (left, right) => wrong(left, Math::Add, right),
        }
    }
}

impl Sub for Val {
    type Output = ValR;

    fn sub(self, other: Self) -> ValR {
        meter::step(1)?;
        if let Some(difference) = numbers(&self, &other, i64::checked_sub, |left, right| left - right) {
            return Ok(difference);
        }
        match (self, other) {
            (Self::Arr(left), Self::Arr(right)) => {
                let kept = left.items().iter().filter(|item| !right.items().contains(item));
                Ok(Self::array(kept.cloned())?)
            }
            (left, right) => wrong(left, Math::Sub, right),
        }
    }
}

impl Mul for Val {
    type Output = ValR;

    fn mul(self, other: Self) -> ValR {
        meter::step(1)?;
        if let Some(product) = numbers(&self, &other, i64::checked_mul, |left, right| left * right) {
            return Ok(product);
        }
        match (self, other) {
            (Self::Str(text), number) | (number, Self::Str(text)) if number.as_float().is_some() => {
                repeat(&text, number.as_float().unwrap_or(0.0))
            }
            (Self::Obj(left), Self::Obj(right)) => merge_deep(left, &right),
            (left, right) => wrong(left, Math::Mul, right),
        }
    }
}

fn repeat(text: &str, times: f64) -> ValR {
    if times.is_nan() || times <= 0.0 {
        return Ok(Val::Null);
    }
    let bytes = text.len() as f64 * times.ceil();
    // Refused by size before anything of that size is made.
    if bytes > meter::VALUE_BYTES_MAX as f64 {
        return Err(meter::stop(Limit::ValueSize).into());
    }
    Ok(Val::new_text(text.repeat(times.ceil() as usize))?)
}

fn merge_deep(left: Arc<Object>, right: &Object) -> ValR {
    let (merged, done) = Val::change_object(left, |object| {
        for (key, value) in right.members() {
            meter::step(1)?;
            let value = match (object.members().get(key), value) {
                (Some(Val::Obj(_)), Val::Obj(new)) => match object.take(key) {
                    Some(Val::Obj(old)) => merge_deep(old, new)?,
                    _ => value.clone(),
                },
                _ => value.clone(),
            };
            object.put(key, Some(value));
        }
        Ok::<(), Error>(())
    })?;
    done.map(|()| merged)
}

impl Div for Val {
    type Output = ValR;

    fn div(self, other: Self) -> ValR {
        meter::step(1)?;
        let exact = |left: i64, right: i64| if right != 0 && left % right == 0 { Some(left / right) } else { None };
        if other.as_float() == Some(0.0) {
            // jaq's own definitions make infinite and not-a-number by dividing by zero.
            return match self.as_float() {
                Some(left) => Ok(Self::Float(left / 0.0)),
                None => wrong(self, Math::Div, other),
            };
        }
        if let (Self::Int(i64::MIN), Self::Int(-1)) = (&self, &other) {
            return Ok(Self::Float(-(i64::MIN as f64)));
        }
        if let Some(quotient) = numbers(&self, &other, exact, |left, right| left / right) {
            return Ok(quotient);
        }
        match (&self, &other) {
            (Self::Str(text), Self::Str(separator)) => split(text, separator),
            _ => wrong(self, Math::Div, other),
        }
    }
}

fn split(text: &str, separator: &str) -> ValR {
    meter::step(text.len() as u64 / 64)?;
    if text.is_empty() {
        return Ok(Val::from_items([]));
    }
    let parts: Result<Vec<_>, _> = if separator.is_empty() {
        text.chars().map(|character| Val::new_text(character.to_string())).collect()
    } else {
        text.split(separator).map(Val::new_text).collect()
    };
    Ok(Val::array(parts?)?)
}

impl Rem for Val {
    type Output = ValR;

    fn rem(self, other: Self) -> ValR {
        meter::step(1)?;
        let whole = |left: i64, right: i64| if right == 0 { None } else { Some(left.wrapping_rem(right)) };
        if other.as_float() == Some(0.0) {
            return wrong(self, Math::Rem, other);
        }
        match numbers(&self, &other, whole, |left, right| left % right) {
            Some(remainder) => Ok(remainder),
            None => wrong(self, Math::Rem, other),
        }
    }
}

impl Neg for Val {
    type Output = ValR;

    fn neg(self) -> ValR {
        meter::step(1)?;
        match self {
            Self::Int(number) => Ok(number.checked_neg().map_or(Self::Float(-(number as f64)), Self::Int)),
            Self::Unsigned(number) => Ok(Self::Float(-(number as f64))),
            Self::Float(number) => Ok(Self::number(-number)),
            value => Err(Error::typ(value, "number")),
        }
    }
}
