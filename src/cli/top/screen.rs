//! The state of the screen: the last snapshot, the selected node, and a question that waits for its
//! answer.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::time::Instant;

use super::{
    feed::News,
    model::{Place, Rates, Snapshot},
};
use crate::cli::admin::AdminUrl;

/// A command to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Cordon(Place),
    Uncordon(Place),
    Drain,
    Undrain,
}

impl Command {
    /// The path of the admin side for the command.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Cordon(place) => format!("/nodes/{}/cordon", place.join("/")),
            Self::Uncordon(place) => format!("/nodes/{}/uncordon", place.join("/")),
            Self::Drain => "/drain".to_owned(),
            Self::Undrain => "/undrain".to_owned(),
        }
    }

    /// The question before the command.
    pub(super) fn question(&self) -> String {
        let node = |[network, layer, name]: &Place| format!("{name} ({network}, {layer})");
        match self {
            Self::Cordon(place) => format!("Cordon {}? It gets no new calls.", node(place)),
            Self::Uncordon(place) => format!("Let {} be used again?", node(place)),
            Self::Drain => "Drain the proxy? It says that it is not ready, and serves on.".to_owned(),
            Self::Undrain => "End the drain?".to_owned(),
        }
    }
}

/// The effect of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The screen is drawn anew.
    Draw,
    /// The command goes to the proxy.
    Do(Command),
    Quit,
}

/// The state of the screen.
pub(super) struct Screen {
    pub(super) admin: AdminUrl,
    pub(super) snapshot: Option<Snapshot>,
    /// When the snapshot came.
    pub(super) at: Option<Instant>,
    pub(super) rates: Rates,
    /// Why no snapshots come.
    pub(super) away: Option<String>,
    pub(super) selected: Option<Place>,
    pub(super) question: Option<Command>,
    /// The outcome of the last command.
    pub(super) message: Option<String>,
}

impl Screen {
    pub(super) fn new(admin: AdminUrl) -> Self {
        Self {
            admin,
            snapshot: None,
            at: None,
            rates: Rates::default(),
            away: None,
            selected: None,
            question: None,
            message: None,
        }
    }

    /// Takes in news that came at `now`.
    pub(super) fn hear(&mut self, news: News, now: Instant) {
        match news {
            News::Away(why) => self.away = Some(why),
            News::Snapshot(snapshot) => {
                self.rates.add(&snapshot);
                let places = snapshot.places();
                if self.selected.as_ref().is_none_or(|selected| places.iter().all(|(place, _)| place != selected)) {
                    self.selected = places.first().map(|(place, _)| place.clone());
                }
                (self.snapshot, self.at, self.away) = (Some(*snapshot), Some(now), None);
            }
        }
    }

    /// Takes in a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Step {
        if key.kind == KeyEventKind::Release {
            return Step::Draw;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            self.question = None;
            return Step::Quit;
        }
        if let Some(command) = self.question.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => Step::Do(command),
                _ => {
                    self.message = Some("nothing was done".to_owned());
                    Step::Draw
                }
            };
        }
        self.message = None;
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Step::Quit,
            KeyCode::Down | KeyCode::Tab | KeyCode::Char('j') => self.select(1),
            KeyCode::Up | KeyCode::BackTab | KeyCode::Char('k') => self.select(-1),
            KeyCode::Home => self.select(isize::MIN),
            KeyCode::End => self.select(isize::MAX),
            KeyCode::Char('c') => self.question = self.selected.clone().map(Command::Cordon),
            KeyCode::Char('u') => self.question = self.selected.clone().map(Command::Uncordon),
            KeyCode::Char('d') => {
                let draining = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.status.draining);
                self.question = Some(if draining { Command::Undrain } else { Command::Drain });
            }
            _ => {}
        }
        Step::Draw
    }

    fn select(&mut self, by: isize) {
        let Some(snapshot) = &self.snapshot else { return };
        let places: Vec<Place> = snapshot.places().into_iter().map(|(place, _)| place).collect();
        let Some(last) = places.len().checked_sub(1) else { return };
        let at = self.selected.as_ref().and_then(|selected| places.iter().position(|place| place == selected));
        self.selected = places.get(at.unwrap_or(0).saturating_add_signed(by).min(last)).cloned();
    }
}
