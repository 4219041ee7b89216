//! How a run ends, scenario by scenario.
//!
//! A scenario passes, fails, or is not on this network. The last is told by the step that asked the
//! network for something that it cannot do, and is right only if the table of `excused.rs` has the
//! scenario; a scenario of the table that goes on to its end has failed as well.

use std::{any::Any, collections::BTreeSet, mem::discriminant};

use cucumber::{
    Event, Writer,
    cli::Empty,
    event::{Cucumber, Feature, Hook, Scenario, ScenarioFinished, Step, StepError},
    gherkin, parser,
    writer::Normalized,
};

use crate::{
    network::{Kind, NotHere, chosen, excused::EXCUSED},
    world::Proxy,
};

/// The tag of scenarios that run on every network.
const TAG: &str = "testnet";

/// Whether the scenario is for every network.
pub fn is_tagged(feature: &gherkin::Feature, scenario: &gherkin::Scenario) -> bool {
    feature.tags.iter().chain(&scenario.tags).any(|tag| tag == TAG)
}

/// What became of the scenarios.
#[derive(Default)]
pub struct Report {
    pub passed: usize,
    /// Of those that passed, how many are for every network.
    pub tagged: usize,
    pub elsewhere: Vec<String>,
    pub failed: Vec<String>,
    /// Rows of the table that were used.
    rows: BTreeSet<usize>,
}

impl Report {
    pub fn note(&mut self, feature: &gherkin::Feature, scenario: &gherkin::Scenario, outcome: &ScenarioFinished) {
        let file = feature.path.as_ref().and_then(|path| path.file_stem()).unwrap_or_default().to_string_lossy();
        let name = format!("{file}: {}", scenario.name);
        let row = EXCUSED
            .iter()
            .position(|(stem, title, kinds, _)| *stem == file && *title == scenario.name && kinds.contains(&chosen()));
        let passed = matches!(outcome, ScenarioFinished::StepPassed) && !scenario.steps.is_empty();
        match (missing(outcome), row) {
            (Some(not), Some(row)) => {
                self.rows.insert(row);
                self.told(&format!("not here  {name} ({})", not.0));
                self.elsewhere.push(name);
            }
            (Some(not), None) => self.fails(&format!("{name} is not excused: {}", not.0)),
            (None, Some(_)) if passed => self.fails(&format!("{name} is excused, and passes")),
            (None, _) if passed => {
                self.told(&format!("passed    {name}"));
                self.passed += 1;
                self.tagged += usize::from(is_tagged(feature, scenario));
            }
            _ => self.fails(&name),
        }
    }

    /// Rows of the table that no scenario of a whole run has used.
    pub fn unused(&self) -> Vec<String> {
        let rows = EXCUSED
            .iter()
            .enumerate()
            .filter(|(row, (.., kinds, _))| kinds.contains(&chosen()) && !self.rows.contains(row));
        rows.map(|(_, (stem, title, ..))| format!("{stem}: {title} is excused, and did not run")).collect()
    }

    fn fails(&mut self, name: &str) {
        self.told(&format!("FAILED    {name}"));
        self.failed.push(name.to_owned());
    }

    /// On the pretend network the writer tells.
    fn told(&self, line: &str) {
        if discriminant(&chosen()) != discriminant(&Kind::Devnet) {
            println!("{line}");
        }
    }
}

/// What the network could not do, if that ended the scenario.
fn missing(outcome: &ScenarioFinished) -> Option<&NotHere> {
    match outcome {
        ScenarioFinished::StepFailed(.., error) => not_here(error),
        _ => None,
    }
}

fn not_here(error: &StepError) -> Option<&NotHere> {
    match error {
        StepError::Panic(info) => (**info).downcast_ref(),
        _ => None,
    }
}

/// Writes why a scenario has failed, and counts what is no scenario's fault.
#[derive(Default)]
pub struct Failures {
    pub errors: usize,
}

impl Writer<Proxy> for Failures {
    type Cli = Empty;

    async fn handle_event(&mut self, event: parser::Result<Event<Cucumber<Proxy>>>, _: &Empty) {
        let (feature, scenario, event) = match event.map(Event::into_inner) {
            Ok(Cucumber::Feature(feature, Feature::Scenario(scenario, event))) => (feature, scenario, event.event),
            Ok(_) => return,
            Err(error) => {
                self.errors += 1;
                return println!("a feature cannot be read: {error}");
            }
        };
        let (step, world, why) = match event {
            Scenario::Step(step, Step::Failed(_, _, world, error))
            | Scenario::Background(step, Step::Failed(_, _, world, error)) => match not_here(&error) {
                Some(_) => return,
                None => (step.value.clone(), world, reason(&error)),
            },
            Scenario::Step(step, Step::Skipped) | Scenario::Background(step, Step::Skipped) => {
                (step.value.clone(), None, "no function matches the step".to_owned())
            }
            Scenario::Hook(kind, Hook::Failed(world, info)) => {
                self.errors += 1;
                (format!("{kind:?} hook"), world, words(&*info))
            }
            _ => return,
        };
        println!("--- {}: {}\n--- {step}\n{why}\n{world:?}", feature.name, scenario.name);
    }
}

// Each of its events stands for itself, in whatever order they come.
impl Normalized for Failures {}

fn reason(error: &StepError) -> String {
    match error {
        StepError::Panic(info) => words(&**info),
        other => other.to_string(),
    }
}

/// What a panic said.
fn words(info: &(dyn Any + Send)) -> String {
    let text = info.downcast_ref::<String>().cloned();
    let text = text.or_else(|| info.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let not = || info.downcast_ref::<NotHere>().map(|not| not.0.clone());
    text.or_else(not).unwrap_or_else(|| "it panicked".to_owned())
}
