//! Whether an answer of the proxy's own making has left.

use std::fmt;

/// Told once whether the last byte of an answer has been written to the client's socket. Dropping
/// it says that it has not.
pub struct Receipt(Option<Box<dyn FnOnce(bool) + Send>>);

impl Receipt {
    /// `tell` is called with the outcome.
    pub fn new(tell: impl FnOnce(bool) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    /// One that tells all of them.
    pub fn of_all(mut receipts: Vec<Self>) -> Option<Box<Self>> {
        Some(Box::new(match receipts.len() {
            0 | 1 => receipts.pop()?,
            // Dropping them says that the answer has not left.
            _ => Self::new(|has_left| {
                if has_left {
                    receipts.into_iter().for_each(Self::has_left)
                }
            }),
        }))
    }

    /// The answer has left.
    pub fn has_left(mut self) {
        if let Some(tell) = self.0.take() {
            tell(true);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(false);
        }
    }
}

/// A receipt is the same as itself alone.
impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Receipt {}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}
