//! A header on the way that cannot be had.

use super::*;

#[test]
fn a_header_that_nobody_gives_is_left_out_after_a_while() {
    let mut scene = Scene::new();
    scene.push(0, "a13");
    assert_eq!(scene.head(0, "a13"), "0? a12; 0? #11");
    assert_eq!(scene.answer(0, "#11", Some(block("a11"))), "0: +a11");
    assert_eq!(scene.answer(0, "a12", None), "");
    scene.push(0, "a14");
    scene.head(0, "a14");
    assert_eq!(scene.wait(100), "0? a12");
    // The pace is not known, so the wait is ten seconds.
    for _ in 0..8 {
        assert_eq!(scene.answer(0, "a12", None), "");
        scene.wait(1200);
    }
    assert_eq!(scene.answer(0, "a12", None), "");
    assert_eq!(scene.wait(299), "");
    assert_eq!(scene.wait(1), "from 11 to 13; 0: +a13 +a14 over a gap");
    assert_eq!(scene.grow(0, "a15"), "0: +a15", "and on");
}

#[test]
fn a_node_that_is_lost_on_the_way_is_not_held_against_the_next() {
    let mut scene = Scene::new();
    scene.push(0, "a12");
    assert_eq!(scene.head(0, "a12"), "0? a11");
    assert_eq!(scene.answer(0, "a11", None), "");
    scene.wait(9_900);
    scene.give(Input::Head(None, Others::Away));
    scene.wait(60_000);
    assert_eq!(scene.head(1, "a12"), "1? a12; 1? #11");
    assert_eq!(scene.answer(1, "a12", Some(block("a12"))), "");
    assert_eq!(scene.answer(1, "#11", Some(block("a11"))), "1: +a11; 1: +a12");
}

impl Scene {
    /// Answers fetches with the right blocks, but not those of `missing`, until no fetch is left.
    /// Returns the changes that were reported.
    fn answer_all_but(&mut self, missing: &str, effects: &str) -> String {
        let mut told = String::new();
        let mut effects: VecDeque<String> = effects.split("; ").map(str::to_owned).collect();
        while let Some(effect) = effects.pop_front() {
            let Some((node, asked)) = effect.split_once("? ") else {
                told += &effect;
                continue;
            };
            let name = asked.replace('#', "a");
            let answer = (!missing.contains(&name)).then(|| block(&name));
            let more = self.answer(node.parse().unwrap(), asked, answer);
            effects.extend(more.split("; ").map(str::to_owned));
        }
        told
    }
}

#[test]
fn a_missing_header_is_left_out_in_time_though_others_come() {
    let mut scene = Scene::new();
    scene.follow.settings.timeout = Some(Duration::from_secs(10));
    let effects = scene.head(0, "a13");
    assert_eq!(scene.answer_all_but("a12", &effects), "0: +a11");
    for tenths in 1..=100 {
        // The node moves on, and each of its new heads has to be fetched.
        let mut effects = scene.wait(100);
        if let Some(head) = [(30, "a14"), (60, "a15")].iter().find_map(|(at, head)| (*at == tenths).then_some(*head)) {
            effects += "; ";
            effects += &scene.head(0, head);
        }
        let expected = if tenths == 100 { "from 11 to 13" } else { "" };
        let told = scene.answer_all_but("a12", &effects);
        assert!(told.starts_with(expected) && told.is_empty() == expected.is_empty(), "{tenths}: {told}");
    }
    assert_eq!(scene.grow(0, "a16"), "0: +a16");
}

#[test]
fn a_header_that_comes_late_leaves_the_next_one_its_own_time() {
    let mut scene = Scene::new();
    scene.follow.settings.timeout = Some(Duration::from_secs(10));
    scene.push(0, "a14");
    let (missing, effects) = ("a11 a12 a13", scene.head(0, "a14"));
    assert_eq!(scene.answer_all_but(missing, &effects), "");
    for _ in 0..99 {
        let effects = scene.wait(100);
        assert_eq!(scene.answer_all_but(missing, &effects), "");
    }
    let effects = scene.answer(0, "a13", Some(block("a13")));
    assert_eq!(scene.answer_all_but("a11 a12", &effects), "");
    let mut tenths = 0;
    let told = loop {
        let effects = scene.wait(100);
        tenths += 1;
        assert!(tenths < 1_000, "nothing is told");
        let told = scene.answer_all_but("a11 a12", &effects);
        if !told.is_empty() {
            break told;
        }
    };
    // The block is asked for after the pause that the block before it has caused.
    assert!(told.starts_with("from 10 to 13") && (100..=120).contains(&tenths), "{tenths}: {told}");
}
