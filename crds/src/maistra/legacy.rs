//! `spec.policy`, `spec.telemetry`, `spec.tracing`: what older manifests still say.

use super::schema::{section, words};

words! {
    /// Who enforces policies or makes telemetry.
    BackendType {
        /// Nobody.
        None,
        /// Mixer, which no longer exists: refused.
        Mixer,
        /// A Mixer elsewhere: refused.
        Remote,
        /// The control plane and its proxies.
        Istiod,
    }
    /// Which tracer receives spans.
    TracingType {
        /// None.
        None,
        /// Jaeger, by Zipkin's protocol.
        Jaeger,
        /// Google's Stackdriver.
        Stackdriver,
    }
}

section! {
    /// How policies are enforced.
    PolicyConfig {
        /// Who enforces them.
        #[serde(rename = "type")]
        kind: BackendType,
        /// Mixer's settings.
        mixer: MixerPolicyConfig,
        /// Settings of a Mixer elsewhere.
        remote: RemotePolicyConfig,
    }
    /// Mixer's policy settings.
    MixerPolicyConfig {
        /// Whether checks are made.
        enable_checks: bool,
        /// Whether a request passes when Mixer cannot be asked.
        fail_open: bool,
        /// Whether one proxy always asks the same Mixer.
        session_affinity: bool,
        /// Mixer's adapters.
        adapters: MixerPolicyAdapters,
    }
    /// Mixer's policy adapters.
    MixerPolicyAdapters {
        /// Whether adapters come from CRDs.
        #[serde(rename = "useAdapterCRDs")]
        use_adapter_crds: bool,
        /// Whether the Kubernetes adapter is on.
        kubernetesenv: bool,
    }
    /// A Mixer elsewhere.
    RemotePolicyConfig {
        /// Its address.
        address: String,
        /// Whether a service is created for it.
        create_service: bool,
        /// Whether checks are made.
        enable_checks: bool,
        /// Whether a request passes when it cannot be asked.
        fail_open: bool,
    }
    /// How telemetry is made.
    TelemetryConfig {
        /// Who makes it.
        #[serde(rename = "type")]
        kind: BackendType,
        /// Mixer's settings.
        mixer: MixerTelemetryConfig,
        /// Settings of a Mixer elsewhere.
        remote: RemoteTelemetryConfig,
    }
    /// Mixer's telemetry settings.
    MixerTelemetryConfig {
        /// Whether one proxy always reports to the same Mixer.
        session_affinity: bool,
        /// What happens under load.
        loadshedding: LoadSheddingConfig,
        /// How reports are grouped.
        batching: BatchingConfig,
        /// Mixer's adapters.
        adapters: MixerTelemetryAdapters,
    }
    /// What Mixer does under load.
    LoadSheddingConfig {
        /// disabled, logonly or enforce.
        mode: String,
        /// The latency from which load is shed.
        latency_threshold: String,
    }
    /// How reports are grouped.
    BatchingConfig {
        /// How many at most.
        max_entries: i32,
        /// For how long at most.
        max_time: String,
    }
    /// Mixer's telemetry adapters.
    MixerTelemetryAdapters {
        /// Whether adapters come from CRDs.
        #[serde(rename = "useAdapterCRDs")]
        use_adapter_crds: bool,
        /// Whether the Kubernetes adapter is on.
        kubernetesenv: bool,
        /// The adapter that writes to standard output.
        stdio: StdioAdapter,
    }
    /// The adapter that writes to standard output.
    StdioAdapter {
        /// Whether it is on.
        enabled: bool,
        /// Whether it writes JSON.
        #[serde(rename = "outputAsJSON")]
        output_as_json: bool,
    }
    /// A Mixer elsewhere.
    RemoteTelemetryConfig {
        /// Its address.
        address: String,
        /// Whether a service is created for it.
        create_service: bool,
        /// How reports are grouped.
        batching: BatchingConfig,
    }
    /// Tracing of requests.
    TracingConfig {
        /// The tracer.
        #[serde(rename = "type")]
        kind: TracingType,
        /// How many requests are traced, in hundredths of a percent: 10000 is all of them.
        sampling: i32,
    }
}
