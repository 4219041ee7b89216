//! What every node must be told: subscriptions to subnets, fee recipients, registrations. It goes to all usable nodes at once; the
//! client has the first good answer, and the others are told to the end all the same.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use super::{Failure, Request, Rest, Sent, answer::Answer, attempt::attempt, upload::Whole};
use crate::domain::refusal::Refusal;

/// How long one node is told.
const TELLING: Duration = Duration::from_secs(30);

impl Rest {
    /// Tells all usable nodes. `None` when it has to take the way of other requests: no node is usable, or none answered.
    pub(super) async fn everywhere(&self, request: &Request, body: &Whole) -> Result<Option<Answer>, Failure> {
        let usable: Vec<usize> = (0..self.pool.nodes.len()).filter(|&node| self.pool.is_usable(node)).collect();
        if usable.is_empty() {
            return Ok(None);
        }
        let (answers, mut told) = mpsc::channel(usable.len());
        {
            let request = Arc::new(request.clone());
            let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
            while background.try_join_next().is_some() {}
            let limit = self.settings.max_held.get();
            if background.len() + usable.len() > limit {
                return Err(Refusal::Limit { name: "max_held", limit }.into());
            }
            for node in usable {
                let (pool, request, answers) = (self.pool.clone(), request.clone(), answers.clone());
                let mut upload = body.upload();
                background.spawn(async move {
                    if let Ok(sent) = timeout(TELLING, attempt(&pool, node, &request, &mut upload, TELLING)).await {
                        // The client may have its answer already.
                        let _ = answers.send(sent).await;
                    }
                });
            }
        }
        drop(answers);
        let (mut of_the_caller, mut of_a_node) = (None, None);
        while let Some(sent) = told.recv().await {
            match sent {
                Sent::Answered(answer) if answer.status < 300 => return Ok(Some(answer)),
                Sent::Answered(answer) => of_the_caller = of_the_caller.or(Some(answer)),
                Sent::OfTheNode(answer, _) | Sent::Refused(answer, _) => of_a_node = of_a_node.or(Some(answer)),
                Sent::Nothing(_) | Sent::Lost(_) | Sent::Late(_) | Sent::Unsent(_) => {}
            }
        }
        Ok(of_the_caller.or(of_a_node))
    }
}
