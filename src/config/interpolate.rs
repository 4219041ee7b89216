//! `${VAR}` in a string value.

/// Replaces each `${VAR}` by its value in `env`; `$${` stands for a literal `${`, and any other `$`
/// for itself. A value that was put in is not looked through again.
///
/// # Errors
/// Everything that is wrong with `text`, by the names of the variables and never by their values.
pub(super) fn interpolate(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<String>> {
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            match after.split_once('}') {
                Some((name, after)) if is_name(name) => {
                    match env(name) {
                        Some(value) if !value.is_empty() => out.push_str(&value),
                        Some(_) => problems.push(format!("environment variable {name} is set but empty")),
                        None => problems.push(format!("environment variable {name} is not set")),
                    }
                    rest = after;
                }
                // The text between the braces is not shown: it may be a secret with braces by
                // mistake.
                Some((_, after)) => {
                    problems.push(
                        "has a `${…}` that does not hold a variable name (write `$${` for a literal `${`)".into(),
                    );
                    rest = after;
                }
                None => {
                    problems.push("has a `${` without its `}` (write `$${` for a literal `${`)".into());
                    rest = "";
                }
            }
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "KEY" => Some("s3cret".into()),
            "LOOP" => Some("${KEY}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_once_and_escapes_are_kept() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a${KEY}b${KEY}", "as3cretbs3cret"),
            ("$${KEY}", "${KEY}"),
            ("$$${KEY}", "$${KEY}"),
            ("$KEY $ $$ 5$", "$KEY $ $$ 5$"),
            ("${LOOP}", "${KEY}"),
            ("é${KEY}é", "és3creté"),
        ] {
            assert_eq!(interpolate(text, &env), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn every_wrong_variable_is_named_and_no_value_is_shown() {
        let problems = interpolate("${KEY}${NOPE}${EMPTY}${s3cret!}${s3cret", &env).expect_err("all but one are wrong");
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].contains("NOPE is not set"));
        assert!(problems[1].contains("EMPTY is set but empty"));
        assert!(!problems.concat().contains("s3cret"), "{problems:?}");
    }
}
