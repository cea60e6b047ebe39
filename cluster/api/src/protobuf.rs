//! Kubernetes' protobuf request bodies as JSON values.
