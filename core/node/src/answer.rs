//! Answers that are sent exactly once, also by a thread that fails.

use tokio::sync::mpsc;

/// Where answers go.
pub(crate) type AnswerSender<T> = mpsc::UnboundedSender<T>;

/// An answer that is owed. Dropped without one, by a panic or a dead thread, it answers with the fallback.
pub(crate) struct Pending<T> {
    answer: Option<T>,
    answers: AnswerSender<T>,
}

impl<T> Pending<T> {
    /// `fallback` is `None` for what is not answered at all.
    pub(crate) fn new(fallback: Option<T>, answers: &AnswerSender<T>) -> Self {
        Self { answer: fallback, answers: answers.clone() }
    }

    /// Answers.
    pub(crate) fn answer(mut self, answer: T) {
        self.answer = Some(answer);
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            let _ = self.answers.send(answer);
        }
    }
}
