//! Sums of the bytes of immutable objects, piece by piece: what was uploaded is known, so what comes back can be
//! proven, whichever part of it is asked for. Stores check what they have, not what arrives elsewhere.

use xxhash_rust::xxh3::xxh3_64;

/// The bytes of an object that have one sum together. The last piece may be shorter.
pub const PIECE: u64 = 256 * 1024;

/// Sums in one record and in one answer: those of 256 MiB.
pub const BLOCK: usize = 1024;

/// Stands for a sum that nobody has made: that of bytes which were there before us.
pub const UNKNOWN: u64 = 0;

/// The sum of one piece, never [`UNKNOWN`].
pub fn of(piece: &[u8]) -> u64 {
    xxh3_64(piece).max(UNKNOWN + 1)
}

/// The sums of bytes that begin where a piece does.
pub fn of_all(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(PIECE as usize).map(of).collect()
}

/// Whether bytes that begin with piece `first` are those that `sums` (of which the first is that of piece 0) were made
/// of. What has no sum is believed.
pub fn prove(sums: &[u64], first: usize, bytes: &[u8]) -> bool {
    let expected = sums.get(first..).unwrap_or_default().iter();
    let pieces = bytes.chunks(PIECE as usize);
    pieces.zip(expected).all(|(piece, sum)| *sum == UNKNOWN || of(piece) == *sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_seen() {
        let mut bytes: Vec<u8> = (0..2 * PIECE + 100).map(|i| (i % 253) as u8).collect();
        let sums = of_all(&bytes);
        assert_eq!(sums.len(), 3);
        assert!(prove(&sums, 0, &bytes));
        assert!(prove(&sums, 1, &bytes[PIECE as usize..]));
        assert!(!prove(&sums, 0, &bytes[PIECE as usize..]), "another piece");
        for at in [0, PIECE as usize, bytes.len() - 1] {
            bytes[at] ^= 0x10;
            assert!(!prove(&sums, 0, &bytes));
            bytes[at] ^= 0x10;
        }
        assert!(!prove(&sums, 0, &bytes[..bytes.len() - 1]), "too short");
    }

    #[test]
    fn what_has_no_sum_is_believed() {
        let bytes = vec![7; PIECE as usize + 1];
        assert!(prove(&[], 0, &bytes) && prove(&[UNKNOWN, of(&[7])], 0, &bytes));
        assert!(!prove(&[UNKNOWN, of(&[8])], 0, &bytes));
    }
}
