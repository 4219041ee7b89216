//! Vixy's file: TOML with `[global]`, `[[el.primary]]`, `[[el.backup]]` and `[[cl]]`.

use super::{
    import::{Fate, Import, Node},
    tree::Tree,
};
use crate::domain::layer::Layer;

pub(super) fn read(text: &str, import: &mut Import) -> Result<(), String> {
    let mut file = Tree::toml(text)?;
    if let Some(mut global) = file.map("global") {
        read_global(&mut global, import);
        global.leave("global", &|_| None, import);
    }
    if let Some(mut metrics) = file.map("metrics") {
        if let Some((line, _)) = metrics.text("enabled") {
            import.note(line, "metrics.enabled", Fate::NotNeeded("metrics are always there, on the admin side".into()));
        }
        if let Some((line, port)) = metrics.number("port") {
            import.set(line, "metrics.port", "admin.listen", format!("\"127.0.0.1:{port}\""));
        }
        metrics.leave("metrics", &|_| None, import);
    }
    if let Some(mut el) = file.map("el") {
        for (tier, is_backup) in [("primary", false), ("backup", true)] {
            for node in el.list(tier) {
                read_execution_node(node, is_backup, &format!("el.{tier}"), import);
            }
        }
        el.leave("el", &|_| None, import);
    }
    for mut node in file.list("cl") {
        let (line, name) = node.text("name").unwrap_or((node.line, "cl".to_owned()));
        match node.text("url") {
            Some((_, url)) => import.add(line, "cl", "", Node::new(Layer::Cl, false, &name, url)),
            None => import.leave(line, "cl", "has no url"),
        }
        node.leave("cl", &|_| None, import);
    }
    file.leave("", &|_| None, import);
    Ok(())
}

fn read_global(global: &mut Tree, import: &mut Import) {
    for (key, setting) in [("max_el_lag_blocks", "health.max_lag_blocks"), ("max_cl_lag_slots", "health.max_lag_slots")]
    {
        if let Some((line, number)) = global.number(key) {
            import.set(line, format!("global.{key}"), setting, number.to_string());
        }
    }
    for (key, setting) in [("health_check_interval_ms", "health.interval"), ("proxy_timeout_ms", "calls.timeout")] {
        if let Some((line, millis)) = global.number(key) {
            import.set_millis(line, &format!("global.{key}"), setting, millis);
        }
    }
    if let Some((line, failures)) = global.number("health_check_max_failures") {
        match failures {
            0 => import.leave(line, "global.health_check_max_failures", "is not a number of failures: see health.fall"),
            _ => import.set(line, "global.health_check_max_failures", "health.fall", failures.to_string()),
        }
    }
    if let Some((line, retries)) = global.number("max_retries") {
        // The first attempt counts here.
        import.set(line, "global.max_retries", "calls.attempts", retries.saturating_add(1).to_string());
    }
}

fn read_execution_node(mut node: Tree, is_backup: bool, key: &str, import: &mut Import) {
    let (line, name) = node.text("name").unwrap_or((node.line, "el".to_owned()));
    let (http, ws) = (node.text("http_url"), node.text("ws_url"));
    match http.or(ws.clone()) {
        Some((_, url)) => {
            let mut found = Node::new(Layer::El, is_backup, &name, url);
            found.ws = ws.map(|(_, url)| url);
            import.add(line, key, "", found);
        }
        None => import.leave(line, key, "has neither http_url nor ws_url"),
    }
    node.leave(key, &|_| None, import);
}
