//! Keys: any name is one token, and different names are different tokens.

use proptest::prelude::*;

use crate::cluster::store::{Key, KeyError, MAX_NAME, MAX_TOKENS, Prefix, Token};

#[test]
fn plain_names_stay_as_they_are() {
    let key = Key::of(&["verdict", "eu-1", "geth_2"]).expect("names");
    assert_eq!(key.as_str(), "verdict.eu-1.geth_2");
}

#[test]
fn other_bytes_are_escaped() {
    let key = Key::of(&["a.b", "* >", "=", "ü"]).expect("names");
    assert_eq!(key.as_str(), "a=2Eb.=2A=20=3E.=3D.=C3=BC");
    assert_eq!(key.names(), ["a.b", "* >", "=", "ü"]);
}

#[test]
fn empty_and_too_long_names_are_refused() {
    assert_eq!(Token::new(""), Err(KeyError::Empty));
    assert!(Token::new(&"x".repeat(MAX_NAME)).is_ok());
    assert_eq!(Token::new(&"x".repeat(MAX_NAME + 1)), Err(KeyError::TooLong(MAX_NAME + 1)));
    assert_eq!(Key::of(&[]), Err(KeyError::Tokens(0)));
    assert!(Key::of(&["x"; MAX_TOKENS]).is_ok());
    assert_eq!(Key::of(&["x"; MAX_TOKENS + 1]), Err(KeyError::Tokens(MAX_TOKENS + 1)));
}

#[test]
fn text_that_no_name_makes_is_no_key() {
    for text in ["", ".", "a.", "a b", "a*", "a.>", "=2e", "=41", "=4", "=", "=+4", "=FF", "ü", "a=2"] {
        assert!(Key::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn prefix_ends_at_a_token() {
    let prefix = Prefix::of(&["a"]).expect("a name");
    let holds = |text: &str| prefix.holds(&Key::parse(text).expect("a key"));
    assert!(holds("a.b") && holds("a.b.c"));
    assert!(!holds("a") && !holds("ab.c") && !holds("b.a"));
    assert!(Prefix::of(&["x"; MAX_TOKENS]).is_err());
}

proptest! {
    #[test]
    fn any_names_make_a_key_and_come_back(
        names in prop::collection::vec("(?s).{1,63}", 1..=MAX_TOKENS)
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let key = Key::of(&names).expect("names");
        prop_assert_eq!(key.names(), names);
        let is_taken = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=.".contains(&byte);
        prop_assert!(key.as_str().bytes().all(is_taken));
        prop_assert_eq!(Key::parse(key.as_str()), Ok(key));
    }

    #[test]
    fn different_names_make_different_tokens(
        one in "[a.=2E*> é]{1,6}", other in "[a.=2E*> é]{1,6}"
    ) {
        let (first, second) = (Token::new(&one), Token::new(&other));
        prop_assert_eq!(first == second, one == other);
    }

    #[test]
    fn text_is_refused_or_is_the_key_of_its_names(text in "[a.=2eE\\-*]{0,12}") {
        if let Ok(key) = Key::parse(&text) {
            prop_assert_eq!(key.as_str(), text);
        }
    }
}
