//! Protobuf's wire format: tagged fields.

use super::ProtobufError;

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message in order.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Payload<'_>)>, ProtobufError> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let payload = match tag & 7 {
            0 => Payload::Varint(varint(&mut bytes)?),
            1 => Payload::Fixed64(u64::from_le_bytes(fixed(&mut bytes)?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX);
                let (own, rest) = bytes.split_at_checked(length).ok_or(ENDS)?;
                bytes = rest;
                Payload::Bytes(own)
            }
            5 => Payload::Fixed32(u32::from_le_bytes(fixed(&mut bytes)?)),
            _ => return Err(ProtobufError::Malformed("a field has an unknown wire type")),
        };
        let number = u32::try_from(tag >> 3).map_err(|_| ProtobufError::Malformed("a field number is too large"))?;
        all.push((number, payload));
    }
    Ok(all)
}

const ENDS: ProtobufError = ProtobufError::Malformed("it ends within a field");

fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(ENDS)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Malformed("a number is too long"))
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], ProtobufError> {
    let (own, rest) = bytes.split_first_chunk::<N>().ok_or(ENDS)?;
    *bytes = rest;
    Ok(*own)
}
