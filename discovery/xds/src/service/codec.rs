//! Requests decoded to just the fields that we read; responses written straight into the send buffer.

use prost::Message as _;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    session::{Protocol, Response},
    wire::{DeltaRequest, Request, StateRequest},
};

/// A buffer is held per stream for as long as it lives, and most streams are idle: small, and grown when needed.
const IDLE_BUFFER: usize = 1_024;
const YIELD_THRESHOLD: usize = 32 * 1_024;

pub(crate) struct AdsCodec {
    protocol: Protocol,
}

impl AdsCodec {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self { protocol }
    }
}

impl Codec for AdsCodec {
    type Encode = Response;
    type Decode = Request;
    type Encoder = ResponseEncoder;
    type Decoder = RequestDecoder;

    fn encoder(&mut self) -> ResponseEncoder {
        ResponseEncoder
    }

    fn decoder(&mut self) -> RequestDecoder {
        RequestDecoder(self.protocol)
    }
}

pub(crate) struct ResponseEncoder;

impl Encoder for ResponseEncoder {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, response: Response, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(response.encoded_length());
        response.encode(out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(IDLE_BUFFER, YIELD_THRESHOLD)
    }
}

pub(crate) struct RequestDecoder(Protocol);

impl Decoder for RequestDecoder {
    type Item = Request;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Request>, Status> {
        let request = match self.0 {
            Protocol::Delta => DeltaRequest::decode(source).map(Request::Delta),
            Protocol::StateOfTheWorld => StateRequest::decode(source).map(Request::State),
        };
        request
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("the request cannot be decoded: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(IDLE_BUFFER, YIELD_THRESHOLD)
    }
}
