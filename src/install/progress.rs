//! What the user sees while something is done: a line per step.

use crate::failure::Failure;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// A line per step.
    Text,
    /// One JSON document at the end.
    Json,
}

/// A step that ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    step: String,
    state: String,
    detail: String,
}

/// The line that is being worked on, and those that are done.
pub(crate) struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    current: String,
    last: String,
    steps: Vec<Step>,
}

impl Progress {
    pub(crate) fn new(output: Output) -> Self {
        let terminal = output == Output::Text && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{prefix:<12}{spinner} {wide_msg} {elapsed:>4}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            output,
            bar,
            current: String::new(),
            last: String::new(),
            steps: Vec::new(),
        }
    }

    /// A step starts.
    pub(crate) fn start(&mut self, step: &str) {
        step.clone_into(&mut self.current);
        self.last.clear();
        if let Some(bar) = &self.bar {
            bar.reset_elapsed();
            bar.set_prefix(step.to_owned());
            bar.set_message("");
        }
    }

    /// What it is waiting for. Said once, however often it is told.
    pub(crate) fn note(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        text.clone_into(&mut self.last);
        match (&self.bar, self.output) {
            (Some(bar), _) => bar.set_message(text.to_owned()),
            (None, Output::Text) => output::line(&format!("{:<12}{:<12}  {text}", self.current, "…")),
            (None, Output::Json) => {}
        }
    }

    /// What is being done, where there is a line that can change; elsewhere it would be many.
    pub(crate) fn spin(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// The step ended well.
    pub(crate) fn done(&mut self, state: &str, detail: &str) {
        self.steps.push(Step {
            step: self.current.clone(),
            state: state.to_owned(),
            detail: detail.to_owned(),
        });
        self.line(&if detail.is_empty() {
            format!("{:<12}{state}", self.current)
        } else {
            format!("{:<12}{state:<12}  {detail}", self.current)
        });
    }

    /// Prints a line above the one that is being worked on.
    pub(crate) fn line(&self, text: &str) {
        match (&self.bar, self.output) {
            (Some(bar), _) => bar.suspend(|| output::line(text)),
            (None, Output::Text) => output::line(text),
            (None, Output::Json) => {}
        }
    }

    /// Tells how all ended; the exit code says it too.
    pub(crate) fn end(self, outcome: Result<(), Failure>) -> ExitCode {
        match outcome {
            Ok(()) => {
                self.finish();
                ExitCode::SUCCESS
            }
            Err(failure) => {
                self.failed(&failure);
                ExitCode::FAILURE
            }
        }
    }

    /// The step failed; nothing follows.
    fn failed(self, failure: &Failure) {
        self.clear();
        match self.output {
            Output::Text => {
                output::line(&format!("{:<12}{:<14}{}", self.current, "failed", failure.what));
                for why in &failure.why {
                    output::line(&format!("{:<12}{:<14}{why}", "", "why"));
                }
                for line in &failure.log {
                    output::line(&format!("{:<12}{:<14}{line}", "", "log"));
                }
                output::line(&format!("{:<12}{:<14}{}", "", "what to do", failure.remedy));
            }
            Output::Json => self.document(Some(failure)),
        }
    }

    /// All steps ended well.
    fn finish(self) {
        self.clear();
        if self.output == Output::Json {
            self.document(None);
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn document(&self, failure: Option<&Failure>) {
        let document =
            serde_json::json!({ "steps": self.steps, "failed": failure.map(|_| &self.current), "failure": failure });
        output::line(&format!("{document:#}"));
    }
}
