//! The corpus against a door that has seen nothing, one that has seen everything, and a route that needs no token.

use std::sync::Arc;

use edge_user::{
    auth::{Authenticator, Authority, Offence, Outcome, Refusal},
    config::AuthPolicy,
};

use crate::{
    corpus::{Case, World},
    support::*,
};

fn door(world: &World) -> Authenticator {
    Authenticator::new(Arc::new(
        Authority::load(&world.providers, None, None, now()).unwrap(),
    ))
}

fn answer(door: &Authenticator, policy: &AuthPolicy, request: &Request) -> Result<Option<String>, Refusal> {
    match door.authenticate(policy, request, now())? {
        Outcome::Verified(permit) => Ok(Some(permit.token().subject().unwrap_or_default().to_owned())),
        Outcome::Anonymous => Ok(None),
    }
}

fn is_expected(case: &Case, answer: &Result<Option<String>, Refusal>) -> bool {
    match (case.expected, answer) {
        (Ok(subject), Ok(Some(real))) => subject == real,
        (Err(reasons), Err(refusal)) => reasons.split('|').any(|reason| reason == refusal.reason()),
        _ => false,
    }
}

#[test]
fn every_attack_gets_its_answer() {
    let world = World::new();
    let cases = world.cases();
    assert!(cases.len() >= 200, "only {} cases", cases.len());
    let door = door(&world);
    let required = AuthPolicy::Required(rule(&[0, 1, 2, 3]));
    let optional = AuthPolicy::Optional(rule(&[0, 1, 2, 3]));
    assert_eq!(door.authority().check_policy(&required), Ok(()));
    let mut wrong = Vec::new();
    for case in &cases {
        let fresh = self::door(&world);
        let first = answer(&fresh, &required, &case.request);
        if !is_expected(case, &first) {
            wrong.push(format!("{}: {first:?} instead of {:?}", case.name, case.expected));
        }
        // A cache with this token, and one with every token before it, changes no answer.
        for door in [&fresh, &door] {
            assert_eq!(
                answer(door, &required, &case.request),
                first,
                "{}, known",
                case.name
            );
        }
        let expected = if first == Err(Refusal::Missing) {
            Ok(None)
        } else {
            first
        };
        assert_eq!(
            answer(&door, &optional, &case.request),
            expected,
            "{}, optional",
            case.name
        );
        assert_eq!(
            answer(&door, &AuthPolicy::None, &case.request),
            Ok(None),
            "{}, open",
            case.name
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    println!("{} cases", cases.len());
}

#[test]
fn refused_tokens_enter_no_cache() {
    let world = World::new();
    let door = door(&world);
    let required = AuthPolicy::Required(rule(&[0, 1, 2, 3]));
    let cases = world.cases();
    for case in cases.iter().filter(|case| case.expected.is_err()) {
        assert!(answer(&door, &required, &case.request).is_err());
    }
    assert_eq!(door.authority().status().cache.entries, 0);
}

#[test]
fn answers_say_what_rfc_6750_wants() {
    let world = World::new();
    let door = door(&world);
    let required = AuthPolicy::Required(rule(&[0, 1, 2, 3]));
    for case in world.cases() {
        let Err(refusal) = answer(&door, &required, &case.request) else {
            continue;
        };
        let challenge = refusal.challenge().unwrap();
        match refusal.status() {
            400 => assert!(challenge.contains("error=\"invalid_request\""), "{}", case.name),
            401 if refusal == Refusal::Missing => assert_eq!(challenge, "Bearer"),
            401 => assert!(challenge.contains("error=\"invalid_token\""), "{}", case.name),
            403 => assert!(
                challenge.contains("error=\"insufficient_scope\""),
                "{}",
                case.name
            ),
            other => panic!("{}: status {other}", case.name),
        }
        assert!(challenge.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert_eq!(refusal.may_login(), refusal.status() == 401);
        match refusal.reason() {
            "bad_signature" | "algorithm_refused" | "critical_extension" | "algorithm_mismatch" => {
                assert_eq!(refusal.offence(), Offence::Forged);
            }
            "missing" | "expired" | "not_yet_valid" => assert_eq!(refusal.offence(), Offence::Innocent),
            _ => {}
        }
    }
}
