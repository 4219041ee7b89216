//! The questions of `steadfast init --ask`.

use std::io::{BufRead, Write};

use super::Nodes;

/// Asks for the nodes, a line each, until an empty line.
///
/// # Errors
/// When no node is named.
pub(super) fn nodes(answers: &mut dyn BufRead, out: &mut dyn Write) -> Result<Nodes, String> {
    let mut nodes = Nodes::default();
    let questions: [(&str, &mut Vec<String>); 4] = [
        ("Primary execution nodes, such as http://10.0.0.1:8545,ws://10.0.0.1:8546", &mut nodes.el),
        ("Backup execution nodes, used while no primary is well", &mut nodes.el_backup),
        ("Primary consensus nodes, such as http://127.0.0.1:5052", &mut nodes.cl),
        ("Backup consensus nodes", &mut nodes.cl_backup),
    ];
    for (question, urls) in questions {
        say(out, &format!("{question}; an empty line ends them.\n"))?;
        while let Some(url) = answer(answers, out)? {
            urls.push(url);
        }
    }
    say(out, "Where clients connect; an empty line means 127.0.0.1:8545.\n")?;
    nodes.listen = answer(answers, out)?;
    if [&nodes.el, &nodes.el_backup, &nodes.cl, &nodes.cl_backup].iter().all(|urls| urls.is_empty()) {
        return Err("no node was named".to_owned());
    }
    Ok(nodes)
}

fn answer(answers: &mut dyn BufRead, out: &mut dyn Write) -> Result<Option<String>, String> {
    say(out, "> ")?;
    let mut line = String::new();
    answers.read_line(&mut line).map_err(|error| format!("standard input: {error}"))?;
    let line = line.trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), String> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("standard error: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_takes_lines_until_an_empty_one() {
        let answers = "http://a\nhttp://b,ws://b\n\n\nhttp://c:5052\n\n\n0.0.0.0:1\n";
        let mut said = Vec::new();
        let nodes = nodes(&mut answers.as_bytes(), &mut said).unwrap();
        assert_eq!(
            (&nodes.el[..], nodes.el_backup.len()),
            (&["http://a".to_owned(), "http://b,ws://b".to_owned()][..], 0)
        );
        assert_eq!(nodes.cl, ["http://c:5052"]);
        assert_eq!(nodes.listen.as_deref(), Some("0.0.0.0:1"));
        assert!(String::from_utf8(said).unwrap().starts_with("Primary execution nodes"));
    }

    #[test]
    fn answers_that_end_are_no_nodes() {
        assert_eq!(nodes(&mut &b""[..], &mut Vec::new()).err().unwrap(), "no node was named");
    }
}
