//! Why discovery cannot be reached.

/// Why a stream ended or could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The token or the roots cannot be read.
    #[error("{what} {path}: cannot be read: {source}; is the volume mounted?")]
    File {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The token is not text that can be sent.
    #[error("token {path}: holds characters that cannot be sent")]
    Token {
        /// Its path.
        path: String,
    },
    /// The address or the roots are unusable.
    #[error("discovery address {address}: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// No connection.
    #[error("discovery {address}: no connection: {reason}")]
    Connect {
        /// The address.
        address: String,
        /// What is wrong, causes included.
        reason: String,
    },
    /// The server did not answer the call in time.
    #[error("discovery {address}: did not begin the stream in time")]
    Silent {
        /// The address.
        address: String,
    },
    /// The server ended the stream with an error.
    #[error("discovery {address}: {code:?}: {message}")]
    Stream {
        /// The address.
        address: String,
        /// gRPC code.
        code: tonic::Code,
        /// Its words.
        message: String,
    },
    /// The server ended the stream.
    #[error("discovery {address}: ended the stream")]
    Ended {
        /// The address.
        address: String,
    },
}

impl ClientError {
    /// A bounded word for metrics.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Token { .. } => "token",
            Self::Address { .. } => "address",
            Self::Connect { .. } => "connect",
            Self::Silent { .. } => "silent",
            Self::Stream { .. } => "stream",
            Self::Ended { .. } => "ended",
        }
    }
}
