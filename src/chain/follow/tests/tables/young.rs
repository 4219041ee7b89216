//! A window that is not full: the chain below it is older than the listeners.

use super::*;

#[test]
fn a_fork_right_below_a_young_window_needs_no_further_header() {
    let mut scene = Scene::new();
    scene.grow(0, "a11");
    scene.push(0, "c10 c11 c12");
    assert_eq!(scene.head(0, "c12"), "depth 2; 0: -a11 -a10 +c10 +c11 +c12");
}

#[test]
fn blocks_below_a_young_window_are_told_once_canonical() {
    let mut scene = Scene::new();
    scene.grow(0, "a11");
    scene.push(0, "d10 d11 d12");
    assert_eq!(scene.head(0, "d12"), "0? d9");
    assert_eq!(scene.answer(0, "d9", Some(block("d9"))), "0? a9", "where the branches part is not known");
    assert_eq!(scene.answer(0, "a9", Some(block("a9"))), "0? d8");
    assert_eq!(scene.answer(0, "d8", Some(block("d8"))), "0? a8");
    let told = "depth 2; 0: -a11 -a10 +d8 +d9 +d10 +d11 +d12";
    assert_eq!(scene.answer(0, "a8", Some(block("a8"))), told);
    scene.push(0, "a10 a12");
    assert_eq!(scene.head(0, "a12"), "depth 5; 0: -d12 -d11 -d10 -d9 -d8 +a8 +a9 +a10 +a11 +a12", "and back");
}

#[test]
fn a_young_window_is_left_no_deeper_than_blocks_are_filled_in() {
    for (branch, told) in [("e", "depth 2; 0: -a11 -a10 +e6 +e7"), ("f", "from 11 to 12; 0: +f12 over a gap")] {
        let mut scene = Scene::new();
        scene.grow(0, "a11");
        for number in (5..=12).filter(|number| branch == "f" || *number > 5) {
            scene.push(0, &format!("{branch}{number}"));
        }
        let mut effects = scene.head(0, &format!("{branch}12"));
        for number in [9, 8, 7, 6] {
            assert_eq!(effects, format!("0? a{number}"));
            effects = scene.answer(0, &format!("a{number}"), Some(block(&format!("a{number}"))));
        }
        assert!(effects.starts_with(told), "{effects}");
    }
}

#[test]
fn a_branch_that_no_node_has_any_more_leaves_a_gap() {
    let mut scene = Scene::new();
    scene.grow(0, "a11");
    scene.push(0, "a5 a6 a7 d8 d9 d10 d11");
    assert_eq!(scene.head(0, "d11"), "0? a9");
    assert_eq!(scene.answer(0, "a9", None), "");
    // The pace is not known, so the wait is ten seconds.
    scene.wait(9_999);
    assert_eq!(scene.answer(0, "a9", None), "");
    assert_eq!(scene.wait(1), "from 11 to 9; 0: +d9 +d10 +d11 over a gap", "d8 may be as old as a7");
}
