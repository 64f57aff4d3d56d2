//! One comparison of this copy with another one, question by question. Whoever holds it carries questions and answers.

use fleet_core::{Error, ErrorKind};
use fleet_store::record::Payload;

use super::exchange::{Run, compare};
use super::handle::Catalog;
use super::message::{Answer, decode, encode};

/// A comparison under way.
#[derive(Debug)]
pub struct Meeting {
    catalog: Catalog,
    room_bytes: usize,
    stage: Stage,
}

/// What comes of an answer.
#[derive(Debug)]
pub enum Heard {
    /// The next question.
    Next(Payload),
    /// There is none: the comparison is over.
    Over {
        /// Whether the copies were the same at its end.
        is_same: bool,
    },
}

#[derive(Debug)]
enum Stage {
    /// It was asked whether the copies are the same.
    Comparing,
    /// They were not: rows go both ways.
    Exchanging(Run),
    /// That was asked again. Copies that are the same now know it at once, and with it what each of them has seen.
    Ending,
}

impl Meeting {
    /// A comparison with `catalog`, in messages of about `room_bytes`, and its first question.
    ///
    /// # Errors
    /// If the question cannot be written down.
    pub fn begin(catalog: Catalog, room_bytes: usize) -> Result<(Self, Payload), Error> {
        let question = encode(&compare(&catalog.replica()))?;
        Ok((Self { catalog, room_bytes, stage: Stage::Comparing }, question))
    }

    /// Takes the answer to the last question.
    ///
    /// # Errors
    /// `InvalidInput` if it is no answer to that; otherwise if the store failed.
    pub async fn heard(&mut self, answer: &Payload) -> Result<Heard, Error> {
        match (std::mem::replace(&mut self.stage, Stage::Ending), decode(answer)?) {
            (Stage::Comparing | Stage::Ending, Answer::Same { seen, outlived }) => {
                self.catalog.adopt(seen, outlived).await?;
                Ok(Heard::Over { is_same: true })
            }
            (Stage::Comparing, Answer::Differ { bits, sums }) => {
                let waiting = self.catalog.waiting();
                let run = Run::begin(&self.catalog.replica(), bits, &sums, self.room_bytes, &waiting)?;
                self.go_on(run)
            }
            (Stage::Exchanging(mut run), Answer::Rows { rows, done, wanted, gone }) => {
                run.heard(rows.len(), done, wanted)?;
                self.catalog.drop_gone(&gone).await?;
                run.merged(&self.catalog.merge(rows).await?);
                self.go_on(run)
            }
            (Stage::Ending, Answer::Differ { .. }) => Ok(Heard::Over { is_same: false }),
            _ => Err(Error::new(ErrorKind::InvalidInput, "compare catalogs: the other node answered something else")),
        }
    }

    /// The next question of `run`, or the last one.
    fn go_on(&mut self, mut run: Run) -> Result<Heard, Error> {
        let question = run.ask(&self.catalog.replica(), &|key| self.catalog.load(key))?;
        let (stage, question) = match question {
            Some(question) => (Stage::Exchanging(run), question),
            None => (Stage::Ending, compare(&self.catalog.replica())),
        };
        self.stage = stage;
        encode(&question).map(Heard::Next)
    }
}
