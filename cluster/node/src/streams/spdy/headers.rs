//! Header blocks: zlib with a preset dictionary, then counted names and values.

use std::collections::HashMap;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// What the headers of one stream may come to.
const HEADER_BYTES: usize = 64 << 10;

/// The compression of headers, whose state spans a connection.
pub(super) struct Headers {
    inflate: Decompress,
    deflate: Compress,
}

impl Headers {
    pub(super) fn new() -> Self {
        Self {
            inflate: Decompress::new(true),
            deflate: Compress::new(Compression::fast(), true),
        }
    }

    pub(super) fn read(&mut self, mut block: &[u8]) -> Option<HashMap<String, String>> {
        let mut plain = Vec::with_capacity(4096);
        let mut primed = false;
        while !block.is_empty() {
            let before = self.inflate.total_in();
            match self.inflate.decompress_vec(block, &mut plain, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() && !primed => {
                    primed = true;
                    self.inflate.set_dictionary(DICTIONARY).ok()?;
                }
                Err(_) => return None,
            }
            let used = usize::try_from(self.inflate.total_in() - before).ok()?;
            block = block.get(used..)?;
            if plain.len() == plain.capacity() {
                if plain.len() >= HEADER_BYTES {
                    return None;
                }
                plain.reserve(4096);
            } else if used == 0 && !primed {
                break;
            }
        }
        parse(&plain)
    }

    /// A block without headers.
    pub(super) fn empty(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(64);
        self.deflate.compress_vec(&[0; 4], &mut out, FlushCompress::Sync).ok()?;
        Some(out)
    }
}

fn parse(plain: &[u8]) -> Option<HashMap<String, String>> {
    let mut rest = plain;
    let number = |rest: &mut &[u8]| -> Option<usize> {
        let (head, tail) = rest.split_at_checked(4)?;
        *rest = tail;
        usize::try_from(u32::from_be_bytes(head.try_into().ok()?)).ok()
    };
    let text = |rest: &mut &[u8]| -> Option<String> {
        let length = number(rest)?;
        let (head, tail) = rest.split_at_checked(length)?;
        *rest = tail;
        Some(String::from_utf8_lossy(head).into_owned())
    };
    let count = number(&mut rest)?;
    (0..count)
        .map(|_| Some((text(&mut rest)?.to_lowercase(), text(&mut rest)?)))
        .collect()
}

/// The dictionary of the protocol's third version: common header names and values, each after its length.
pub(super) const DICTIONARY: &[u8] = include_bytes!("dictionary");
