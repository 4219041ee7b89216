//! Every route of the beacon API's own description, with each of its answers and examples, through the proxy byte for byte.
//!
//! The description is not part of the project: where the folder beside it is missing, this test says so and passes, unless
//! `STEADFAST_REQUIRE_SHARED=1` demands it.

mod outline;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::common::rest::{Exchange, Node, over, request, response};
use outline::Outline;
use serde::de::IgnoredAny;
use steadfast::domain::beacon_route::{Class, Route};

/// Every route of the description with its methods, what each is to the proxy, and whether a success has `data` in JSON.
const ROUTES: &str = include_str!("beacon_routes/routes.txt");
/// Routes that are in no description any more, and that clients still use.
const FORMER: &str = include_str!("beacon_routes/former.txt");

/// Event streams are no node's answer passed on: they have tests of their own.
const STREAMS: &str = "/eth/v1/events";
/// What stands for a body of SSZ.
const SSZ: &[u8] = b"\x00\x01\xff\r\n\r\n0\r\n\r\n\x80";

/// One request of a route and one answer to it.
struct Case {
    method: String,
    target: String,
    /// Header lines of the request, and its body.
    fields: String,
    body: Vec<u8>,
    /// The answer.
    status: String,
    answer_fields: Vec<(String, String)>,
    answer: Vec<u8>,
}

fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/beacon-apis");
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var("STEADFAST_REQUIRE_SHARED").is_ok_and(|value| value == "1");
    assert!(!required, "{} is missing", folder.display());
    println!("left out: {} is missing", folder.display());
    None
}

/// The examples of a content: the bytes that stand for each.
fn examples(kind: &str, content: &Outline, found: &mut usize) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut add = |example: &Outline| {
        let text = [example.value.as_bytes(), example.text.as_bytes()].concat();
        // Some are written in YAML, or in part: nodes answer in JSON.
        let is_yaml = kind.ends_with("json") && serde_json::from_slice::<IgnoredAny>(&text).is_err();
        bodies.push(if is_yaml { example.json().to_string().into_bytes() } else { text });
    };
    content.get("example").into_iter().for_each(&mut add);
    for example in content.get("examples").map(|examples| &examples.below).into_iter().flatten() {
        add(example.get("value").unwrap_or(example));
    }
    *found += bodies.len();
    if bodies.is_empty() {
        bodies.push(if kind == "application/octet-stream" { SSZ.to_vec() } else { b"{ \"data\":\t[ ] }\n".to_vec() });
    }
    bodies
}

/// The contents of an answer or a request's body: their kinds and bytes. One without a body, if there is no content.
fn contents(of: Option<&Outline>, found: &mut usize) -> Vec<(Option<String>, Vec<u8>)> {
    let content = of.and_then(|of| of.get("content"));
    let mut all = Vec::new();
    for content in content.map(|content| &content.below).into_iter().flatten() {
        all.extend(examples(&content.key, content, found).into_iter().map(|body| (Some(content.key.clone()), body)));
    }
    if all.is_empty() {
        all.push((None, Vec::new()));
    }
    all
}

/// The cases of one method of a route.
fn cases(path: &str, method: &Outline, shared: &Outline, found: &mut usize) -> Vec<Case> {
    let mut fields = "accept: application/octet-stream;q=1.0,application/json;q=0.9\r\n".to_owned();
    let mut query = Vec::new();
    for parameter in method.get("parameters").map(sections).into_iter().flatten() {
        let (name, place) = (parameter.get("name"), parameter.get("in"));
        match (name, place.map(|place| &*place.value)) {
            (Some(name), Some("query")) => query.push(format!("{}=0x1,2", name.value)),
            (Some(name), Some("header")) => fields.push_str(&format!("{}: gloas\r\n", name.value)),
            _ => {}
        }
    }
    let mut target =
        path.split('{').enumerate().fold(String::new(), |target, (i, part)| match (i, part.split_once('}')) {
            (0, _) | (_, None) => target + part,
            (_, Some((_, rest))) => target + "head" + rest,
        });
    if !query.is_empty() {
        target = format!("{target}?{}", query.join("&"));
    }
    let mut cases = Vec::new();
    for (kind, body) in contents(method.get("requestBody"), found) {
        let kind = kind.map(|kind| format!("content-type: {kind}\r\n")).unwrap_or_default();
        for answer in &method.get("responses").unwrap().below {
            // Some are described elsewhere.
            let described = answer.get("$ref").map(|place| place.value.rsplit('/').next().unwrap().to_owned());
            let described = described.map_or(answer, |name| shared.get(&name).unwrap_or_else(|| panic!("{name}")));
            for (answer_kind, answer_body) in contents(Some(described), found) {
                let mut answer_fields: Vec<_> =
                    answer_kind.map(|kind| ("content-type".to_owned(), kind)).into_iter().collect();
                let headers = described.get("headers").map(|headers| &headers.below).into_iter().flatten();
                answer_fields.extend(headers.map(|header| (header.key.to_ascii_lowercase(), "gloas".to_owned())));
                cases.push(Case {
                    method: method.key.to_ascii_uppercase(),
                    target: target.clone(),
                    fields: format!("{fields}{kind}"),
                    body: body.clone(),
                    status: answer.key.clone(),
                    answer_fields,
                    answer: answer_body,
                });
            }
        }
    }
    cases
}

/// The items of a list of mappings.
fn sections(list: &Outline) -> Vec<Outline> {
    let mut items: Vec<Outline> = Vec::new();
    for line in &list.below {
        if line.begins {
            items.push(Outline::default());
        }
        items.last_mut().unwrap().below.push(line.clone());
    }
    items
}

/// All cases, the number of routes and that of examples.
fn all(folder: &Path) -> (Vec<Case>, BTreeMap<String, usize>, usize) {
    let index = Outline::read(&folder.join("beacon-node-oapi.yaml"));
    let shared = Outline::read(&folder.join("types/http.yaml"));
    let (mut all, mut routes, mut found) = (Vec::new(), BTreeMap::new(), 0);
    for path in &index.get("paths").unwrap().below {
        if path.key == STREAMS {
            continue;
        }
        let route = Outline::read(&folder.join(&path.get("$ref").unwrap().value));
        for method in &route.below {
            let cases = cases(&path.key, method, &shared, &mut found);
            routes.insert(format!("{} {}", method.key, path.key), cases.len());
            all.extend(cases);
        }
    }
    (all, routes, found)
}

/// Method, path, class and form of each line.
fn listed(list: &'static str) -> impl Iterator<Item = [&'static str; 4]> {
    list.lines().map(|line| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
        [word(), word(), word(), word()]
    })
}

#[test]
fn every_route_has_the_class_that_the_list_gives_it() {
    let lines: Vec<_> = listed(ROUTES).chain(listed(FORMER)).collect();
    assert!(lines.len() > 95, "{} routes", lines.len());
    for [method, path, class, form] in lines {
        let path: Vec<&str> = path.split('/').map(|step| if step.starts_with('{') { "head" } else { step }).collect();
        let route = Route::of(method, &path.join("/"));
        let of_the_table = match route.class {
            Class::Read => "read",
            Class::Publish => "publish",
            Class::Everywhere => "everywhere",
            Class::Once => "once",
        };
        let of_the_form = if route.has_data { "data" } else { "other" };
        assert_eq!((of_the_table, of_the_form, route.group == "other"), (class, form, false), "{method} {path:?}");
    }
}

/// Whether a success of a method is an object with `data` in JSON.
fn has_data(method: &Outline) -> bool {
    let steps = ["responses", "200", "content", "application/json", "schema", "properties", "data"];
    steps.iter().try_fold(method, |outline, step| outline.get(step)).is_some()
}

#[test]
fn the_list_has_every_route_of_the_description() {
    let Some(folder) = folder() else { return };
    let index = Outline::read(&folder.join("beacon-node-oapi.yaml"));
    let mut described = Vec::new();
    for path in &index.get("paths").unwrap().below {
        let route = Outline::read(&folder.join(&path.get("$ref").unwrap().value));
        described.extend(route.below.iter().map(|method| {
            let form = if has_data(method) { "data" } else { "other" };
            format!("{} {} {form}", method.key.to_ascii_uppercase(), path.key)
        }));
    }
    let mut known: Vec<String> =
        listed(ROUTES).map(|[method, path, _, form]| format!("{method} {path} {form}")).collect();
    described.sort();
    known.sort();
    assert_eq!(known, described);
}

#[tokio::test]
async fn every_route_and_example_passes_unchanged() {
    let Some(folder) = folder() else { return };
    let (cases, routes, examples) = all(&folder);
    // Reading nothing would find nothing wrong.
    assert!(routes.len() > 85 && routes.values().all(|cases| *cases > 0), "{} routes: {routes:?}", routes.len());
    assert!(examples > 200, "{examples} examples");
    let publishes =
        |case: &&Case| case.method == "POST" && case.target.starts_with("/eth/v2/beacon/blocks?broadcast_validation=");
    assert!(cases.iter().find(publishes).unwrap().fields.contains("Eth-Consensus-Version: gloas"));
    let cases = Arc::new(cases);
    let scripted = cases.clone();
    let node = Node::start(move |exchange: Exchange| {
        let case: usize = exchange.asked.header("x-case")[0].parse().unwrap();
        let case = &scripted[case];
        let fields: String = case.answer_fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let answer = match &*case.status {
            "204" => format!("HTTP/1.1 204 X\r\n{fields}\r\n").into_bytes(),
            status => response(&format!("{status} X"), &fields, &case.answer),
        };
        exchange.reply(answer)
    })
    .await;
    // What is signed would be sent again for as long.
    let proxy = over(&[&node], "[calls]\nhold = \"0s\"\n").await;
    let mut client = proxy.client().await;
    for (i, case) in cases.iter().enumerate() {
        let what = format!("{} {} {}", case.method, case.target, case.status);
        let fields = format!("{}x-case: {i}\r\n", case.fields);
        client.send(request(&case.method, &case.target, &fields, &case.body)).await;
        let answer = client.response().await;
        assert_eq!(answer.status.to_string(), case.status, "{what}");
        assert_eq!(answer.body, case.answer, "{what}");
        for (name, value) in &case.answer_fields {
            assert_eq!(answer.header(name), Some(&**value), "{what}: {name}");
        }
        let asked = node.asked();
        assert_eq!(asked.len(), i + 1, "{what} was not sent once");
        let seen = &asked[i];
        assert_eq!((&seen.method, &seen.target), (&case.method, &case.target), "{what}");
        assert_eq!(seen.body, case.body, "{what}");
        for line in fields.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(seen.header(name), [value], "{what}: {name}");
        }
    }
    println!("{} requests over {} routes, {examples} examples", cases.len(), routes.len());
}
