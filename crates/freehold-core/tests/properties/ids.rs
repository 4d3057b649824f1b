//! Ids: what the unit tests beside them say of some lengths, at all lengths, and for whole subjects.

use freehold_core::subject::RecordsSubject;
use freehold_core::{CommandId, GroupCount, MAX_COMMAND_ID_BYTES, MAX_GROUP_COUNT, MAX_RECORD_ID_BYTES, RecordId};
use proptest::prelude::*;

/// Texts of all scripts and all lengths, with the characters that mean something to a subject more often than not.
fn texts() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        Just('.'),
        Just('*'),
        Just('>'),
        Just(' '),
        Just('%'),
        Just('/'),
        (0u8..32).prop_map(char::from),
        Just('\u{7f}'),
        any::<char>(),
        prop::char::range('a', 'z'),
    ];
    prop::collection::vec(character, 0..300).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn a_text_is_an_id_if_its_length_allows(text in texts()) {
        let fits = (1..=MAX_RECORD_ID_BYTES).contains(&text.len());
        let id = text.parse::<RecordId>();
        prop_assert_eq!(id.is_ok(), fits);
        let Ok(id) = id else { return Ok(()) };
        let token = id.token();
        let token = token.as_str();
        prop_assert!(token.len() <= 3 * text.len() && !token.is_empty());
        let means_something = |c: char| matches!(c, '.' | '*' | '>' | ' ' | '$') || c.is_control() || !c.is_ascii();
        prop_assert!(!token.contains(means_something), "{token}");
    }

    /// Two ids never share a subject, however alike they look, and every subject is read back.
    #[test]
    fn each_id_has_a_subject_of_its_own(one in texts(), other in texts(), group in 0..MAX_GROUP_COUNT) {
        let (Ok(one), Ok(other)) = (one.parse::<RecordId>(), other.parse::<RecordId>()) else { return Ok(()) };
        let subject = |id| {
            let (site, kind) = ("ewr".parse().unwrap(), "flight".parse().unwrap());
            RecordsSubject::update(&site, &kind, freehold_core::GroupNumber(group), id)
        };
        prop_assert_eq!(one == other, subject(&one).to_string() == subject(&other).to_string());
        prop_assert_eq!(RecordsSubject::parse(&subject(&one).to_string()), Some(subject(&one)));
    }

    #[test]
    fn ids_that_differ_by_one_character_stay_apart(text in "[a-z.%*\u{e9}]{1,40}", at in any::<prop::sample::Index>()) {
        let one: RecordId = text.parse().unwrap();
        let mut characters: Vec<char> = text.chars().collect();
        let place = at.index(characters.len());
        // Also the look-alike of two characters, and what its own escape looks like.
        for other in ["%2E", "e\u{301}", "E", "\u{430}", ""] {
            let kept = characters[place];
            if other == kept.to_string() {
                continue;
            }
            characters[place] = '\u{1}';
            let text: String = characters.iter().collect::<String>().replace('\u{1}', other);
            characters[place] = kept;
            if let Ok(other) = text.parse::<RecordId>() {
                prop_assert_ne!(one.token(), other.token());
            }
        }
    }

    #[test]
    fn every_id_has_a_group(text in texts(), count in 1..=MAX_GROUP_COUNT) {
        let Ok(id) = text.parse::<RecordId>() else { return Ok(()) };
        let groups = GroupCount::new(count).unwrap();
        prop_assert!(groups.group_of(&id).0 < count);
        prop_assert_eq!(groups.group_of(&id), groups.group_of_token(&id.token()));
    }

    #[test]
    fn a_callers_command_id_is_bounded_and_printable(text in texts()) {
        let fits = (1..=MAX_COMMAND_ID_BYTES).contains(&text.len()) && !text.contains(char::is_control);
        prop_assert_eq!(CommandId::from_caller(&text).is_ok(), fits);
    }
}
