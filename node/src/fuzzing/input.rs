//! Input taken apart piece by piece, and valid input changed by a script.

/// Takes pieces from the front; what is missing at the end is zero or empty, so that every input means something.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    pub(super) fn short(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    /// At most so many bytes.
    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their length (2 bytes) in front.
    pub(super) fn piece(&mut self) -> &'a [u8] {
        let most = self.short();
        self.bytes(most)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Puts a piece as [`Input::piece`] takes it.
pub(super) fn push_piece(to: &mut Vec<u8>, piece: &[u8]) {
    let bytes = u16::try_from(piece.len()).expect("pieces of seeds are short");
    to.extend(bytes.to_be_bytes());
    to.extend_from_slice(piece);
}

/// Changes valid input: each step of the script (8 bytes: what, two places, a value) flips, sets, cuts, copies, repeats,
/// swaps or inserts. An empty script changes nothing.
#[must_use]
pub fn mutate(valid: &[u8], script: &[u8]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    let mut script = Input::new(script);
    while !script.is_empty() && bytes.len() < 4 * valid.len() + 4_096 {
        let (what, one, two) = (script.byte(), wide(&mut script), wide(&mut script));
        let value = script.byte();
        step(&mut bytes, what, one, two, value);
    }
    bytes
}

fn wide(script: &mut Input<'_>) -> usize {
    usize::from(script.byte()) << 16 | script.short()
}

fn step(bytes: &mut Vec<u8>, what: u8, one: usize, two: usize, value: u8) {
    let end = bytes.len();
    if end == 0 {
        bytes.push(value);
        return;
    }
    let (one, two) = (one % end, two % end);
    let (from, to) = (one.min(two), one.max(two) + 1);
    match what % 8 {
        0 => bytes[one] ^= 1 << (value % 8),
        1 => bytes[one] = value,
        2 => bytes.truncate(one),
        3 => drop(bytes.drain(from..to)),
        4 => bytes.insert(one, value),
        5 => {
            let copied = bytes[from..to.min(from + 64)].to_vec();
            bytes.splice(from..from, copied);
        }
        6 => {
            let span = usize::from(value % 32) + 1;
            let copied = bytes[one..(one + span).min(end)].to_vec();
            let room = copied.len().min(end - two);
            bytes[two..two + room].copy_from_slice(&copied[..room]);
        }
        _ => bytes.extend(std::iter::repeat_n(value, one % 64 + 1)),
    }
}
