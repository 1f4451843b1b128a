//! What a kernel may be unable to run: the parts of the shield that are programs of their own.

/// A part of the shield that works or is missing as a whole, whatever becomes of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Feature {
    /// Direct services, whose packets go to backends without entering user space.
    Steering = 0,
    /// SYNs that are answered with cookies.
    Cookies = 1,
    /// Direct services with [`super::Forward::Nat`].
    Translation = 2,
}

impl Feature {
    /// All of them, by their number.
    pub const ALL: [Self; 3] = [Self::Steering, Self::Cookies, Self::Translation];
    /// How many there are.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// As operators are told of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steering => "steering",
            Self::Cookies => "SYN cookies",
            Self::Translation => "address translation",
        }
    }
}

/// Room for why a feature is missing: text that zeros end.
pub const WHY_BYTES: usize = 240;
