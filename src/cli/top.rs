//! `steadfast top`: a live view of a running proxy, over the whole terminal.

mod draw;
mod feed;
mod model;
mod screen;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Args;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, interval},
};

use self::screen::{Command, Screen, Step};
use super::{admin::Admin, block_on};

/// Which proxy.
#[derive(Args)]
pub(super) struct Top {
    #[command(flatten)]
    admin: Admin,
}

/// The age of the snapshot is drawn anew this often.
const ROUND: Duration = Duration::from_secs(1);
/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(top: &Top) -> ExitCode {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        eprintln!("top needs a terminal; `steadfast status` prints the same to anything");
        return ExitCode::from(2);
    }
    // A panic restores the terminal before its message is printed.
    let outcome = match ratatui::try_init() {
        Ok(mut terminal) => block_on(watch(&top.admin, &mut terminal)),
        Err(error) => Ok(Err(error)),
    };
    ratatui::restore();
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("the terminal: {error}");
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}

/// Draws until the operator has seen enough.
async fn watch(admin: &Admin, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let (news, mut heard) = mpsc::channel(4);
    let (keys, mut pressed) = mpsc::channel(16);
    let (done, mut outcomes) = mpsc::channel(4);
    // Ends with the process: reading the terminal cannot be called off.
    thread::Builder::new().name("keys".into()).spawn(move || read_keys(&keys))?;
    let reading = tokio::spawn(feed::read(admin.url(), news));
    let mut signals =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let [interrupt, terminate, hangup] = &mut signals;
    let mut screen = Screen::new(admin.url());
    let mut rounds = interval(ROUND);
    loop {
        terminal.draw(|frame| draw::draw(frame, &screen, Instant::now()))?;
        // All arms are cancel-safe.
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
            event = pressed.recv() => match event {
                Some(Ok(Event::Key(key))) => match screen.press(key) {
                    Step::Draw => {}
                    Step::Quit => break,
                    Step::Do(command) => {
                        screen.message = Some("asking the proxy".to_owned());
                        let (admin, done) = (admin.clone(), done.clone());
                        // Without a reader the outcome is of no interest.
                        tokio::spawn(async move { done.send(obey(&admin, &command).await).await });
                    }
                },
                // The size is asked for with each drawing.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            },
            Some(outcome) = outcomes.recv() => screen.message = Some(outcome),
            Some(one) = heard.recv() => screen.hear(one, Instant::now()),
            _ = rounds.tick() => {}
        }
    }
    reading.abort();
    Ok(())
}

/// Passes on the terminal's events until the receiver is gone.
fn read_keys(keys: &mpsc::Sender<io::Result<Event>>) {
    loop {
        let event = event::read();
        let is_over = event.is_err();
        if keys.blocking_send(event).is_err() || is_over {
            return;
        }
    }
}

/// Sends the command, and tells the outcome.
async fn obey(admin: &Admin, command: &Command) -> String {
    match admin.post(&command.path(), TIMEOUT).await {
        Ok(answer) => {
            let told = answer.json();
            match (answer.status.is_success(), told["error"].as_str(), told["warning"].as_str()) {
                (true, _, Some(warning)) => format!("done; {warning}"),
                (true, ..) => "done".to_owned(),
                (false, Some(why), _) => why.to_owned(),
                (false, None, _) => format!("the admin side answered with HTTP status {}", answer.status),
            }
        }
        Err(why) => why.replace('\n', "; "),
    }
}
