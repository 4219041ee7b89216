//! Whether an answer of the proxy's own making has left.

use std::fmt;

/// Reports once whether the last byte of an answer has been written to the client's socket. A
/// receipt that is dropped reports that the answer has not left.
pub struct Receipt(Option<Box<dyn FnOnce(bool) + Send>>);

impl Receipt {
    /// Calls `tell` with the outcome.
    pub fn new(tell: impl FnOnce(bool) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    /// A receipt that reports to all `receipts`.
    pub fn of_all(mut receipts: Vec<Self>) -> Option<Box<Self>> {
        Some(Box::new(match receipts.len() {
            0 | 1 => receipts.pop()?,
            // Dropping the receipts reports that the answer has not left.
            _ => Self::new(|has_left| {
                if has_left {
                    receipts.into_iter().for_each(Self::has_left)
                }
            }),
        }))
    }

    /// Reports that the answer has left.
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
