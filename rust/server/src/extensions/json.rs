//! The protocol's messages as JSON, by their descriptors: the HTTP form of the extensions.
//!
//! Field names are the proto's own and 64-bit integers are numbers, as Triton writes them.

use std::sync::LazyLock;

use mlserve_core::error::{Error, Result};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use crate::proto::DESCRIPTORS;

/// Decoded on first use: only HTTP clients of the extensions and `config.pbtxt` need it.
static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok());

/// The descriptor of `inference.NAME`.
pub(crate) fn descriptor(name: &str) -> Result<MessageDescriptor> {
    let found = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&format!("inference.{name}")));
    found.ok_or_else(|| Error::internal("a message of the protocol has no descriptor"))
}

/// Which members a message is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Members {
    /// All, also those with their default value.
    All,
    /// Only those with another value.
    Set,
}

/// `message`, which is an `inference.NAME`, as JSON.
pub(crate) fn to_json(message: &impl Message, name: &str, members: Members) -> Result<Value> {
    let failed = |_| Error::internal("a message could not be written as JSON");
    let dynamic = DynamicMessage::decode(descriptor(name)?, &*message.encode_to_vec());
    let dynamic = dynamic.map_err(|_| Error::internal("a message could not be read by its descriptor"))?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(members == Members::Set);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ModelStatistics, ModelStatisticsResponse};

    #[test]
    fn default_members_are_written_or_left_out() {
        let statistics = ModelStatistics { name: "a".to_owned(), last_inference: 1 << 60, ..Default::default() };
        let response = ModelStatisticsResponse { model_stats: vec![statistics] };
        let set = to_json(&response, "ModelStatisticsResponse", Members::Set).expect("written");
        assert_eq!(set, serde_json::json!({"model_stats": [{"name": "a", "last_inference": 1_u64 << 60}]}));
        let all = to_json(&response, "ModelStatisticsResponse", Members::All).expect("written");
        assert_eq!(all["model_stats"][0]["batch_stats"], serde_json::json!([]));
    }
}
