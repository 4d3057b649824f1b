//! What an instance says of itself: the endpoints that clients discover, with their JSON Schemas, and its status.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use freehold_core::{Decider, KindDefinition, Member, subject};
use freehold_jetstream::{EndpointInfo, MicroOptions};

use crate::copy::Copy;
use crate::membership::{Identity, MemberLists};
use crate::service::Service;

pub(crate) fn micro_options(
    service: &Service,
    identity: &Identity,
    copy: Copy,
    held: Arc<AtomicUsize>,
    lists: MemberLists,
) -> MicroOptions {
    let Member { instance, nonce } = &identity.member;
    let config = &service.config;
    let mut kinds: Vec<_> = service.definitions.values().collect();
    kinds.sort_by(|left, right| left.name.cmp(&right.name));
    let endpoints = kinds.iter().flat_map(|definition| endpoints(definition)).collect();
    let kind_names: Vec<_> = kinds.iter().map(|definition| definition.name.clone()).collect();
    let report = {
        let (config, kind_names) = (config.clone(), kind_names.clone());
        move || {
            let origins = config.sites.iter().map(|site| (site.to_string(), copy.progress_of(site).0.into()));
            let others = config.sites.iter().filter(|site| **site != config.site);
            let ages = others.map(|site| {
                let age = copy.age_of(site).and_then(|age| u64::try_from(age.as_millis()).ok());
                (site.to_string(), serde_json::json!(age))
            });
            let health = config.sites.iter().map(|site| (site.to_string(), copy.health_of(site).into()));
            let members = kind_names.iter().map(|kind| {
                let list = lists.watch(kind).borrow().clone();
                let names = list.members.iter().map(|member| member.instance.to_string());
                (
                    kind.to_string(),
                    serde_json::json!({ "revision": list.revision, "members": names.collect::<Vec<_>>() }),
                )
            });
            serde_json::json!({
                "groups_held": held.load(Ordering::Relaxed),
                "applied": origins.collect::<serde_json::Map<String, serde_json::Value>>(),
                "age_ms": ages.collect::<serde_json::Map<String, serde_json::Value>>(),
                "health": health.collect::<serde_json::Map<String, serde_json::Value>>(),
                "members": members.collect::<serde_json::Map<String, serde_json::Value>>(),
            })
        }
    };
    let kinds_text = kind_names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    MicroOptions {
        name: service.name.clone(),
        id: nonce.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: format!("Records of {kinds_text}, each with one system of record"),
        metadata: HashMap::from([
            ("freehold-site".to_owned(), config.site.to_string()),
            ("freehold-instance".to_owned(), instance.to_string()),
            ("freehold-nonce".to_owned(), nonce.to_string()),
            ("freehold-kinds".to_owned(), kinds_text),
        ]),
        endpoints,
        subscriptions: kind_names
            .iter()
            .flat_map(|kind| [format!("freehold.{kind}.*"), subject::operator(&config.site, kind, "*")])
            .collect(),
        status: Arc::new(report),
    }
}

/// The endpoints of a kind as clients discover them: its commands with their schemas, and its reads.
fn endpoints(definition: &KindDefinition) -> Vec<EndpointInfo> {
    let endpoint = |name: &str, metadata: HashMap<String, String>| EndpointInfo {
        name: format!("{}-{name}", definition.name),
        subject: format!("freehold.{}.{name}", definition.name),
        metadata,
    };
    let command = |decider: &Arc<dyn Decider>| {
        let metadata = HashMap::from([
            ("request-schema".to_owned(), command_schema(decider.as_ref()).to_string()),
            ("reply-schema".to_owned(), decider.reply_schema().to_string()),
        ]);
        endpoint(decider.name().as_str(), metadata)
    };
    let reads = crate::read_requests::schemas(&definition.name, &definition.record_schema);
    let read = |(name, request, reply): (&str, serde_json::Value, serde_json::Value)| {
        let metadata = HashMap::from([
            ("request-schema".to_owned(), request.to_string()),
            ("reply-schema".to_owned(), reply.to_string()),
        ]);
        endpoint(name, metadata)
    };
    definition.commands.values().map(command).chain(reads.into_iter().map(read)).collect()
}

/// A command's request on the wire: its own fields, `id` and `if_version`.
fn command_schema(decider: &dyn Decider) -> serde_json::Value {
    let mut schema = decider.request_schema();
    if let Some(properties) =
        schema.as_object_mut().map(|schema| schema.entry("properties").or_insert_with(|| serde_json::json!({})))
    {
        properties["id"] = serde_json::json!({ "type": "string", "minLength": 1, "maxLength": 255 });
        properties["if_version"] = serde_json::json!({ "type": "integer", "minimum": 0 });
    }
    if !decider.mints_id()
        && let Some(schema) = schema.as_object_mut()
    {
        let required = schema.entry("required").or_insert_with(|| serde_json::json!([]));
        if let Some(required) = required.as_array_mut() {
            required.push("id".into());
        }
    }
    schema
}
