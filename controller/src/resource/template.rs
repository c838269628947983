//! The naming rule by which a tenant gives shares from others a path of its own: `/shares/{owner}/{name}`.

use std::fmt;

use address_map::name::LogicalPath;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Why a text is not a naming rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A placeholder that does not exist.
    #[error("unknown placeholder {{{0}}}; known are {{owner}}, {{name}} and {{share}}")]
    UnknownPlaceholder(String),
    /// A `{` without its `}` or the other way round.
    #[error("unbalanced braces; placeholders are written {{owner}}, {{name}} and {{share}}")]
    Unbalanced,
    /// The rule does not make a path.
    #[error("the rule does not make a path below '/': {0}")]
    NotAPath(String),
}

/// A checked naming rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Checks a rule by expanding it once.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let expanded = expand(text, "owner", "name", "share")?;
        match LogicalPath::parse(expanded.as_bytes()) {
            Ok(path) if path.names().is_empty() => {
                Err(TemplateError::NotAPath("it is '/' itself".to_owned()))
            }
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(TemplateError::NotAPath(error.to_string())),
        }
    }

    /// The path for what `owner` shares under the name `name` as the share `share`.
    ///
    /// # Errors
    /// The values make a name or the path too long.
    pub fn path(&self, owner: &str, name: &str, share: &str) -> Result<LogicalPath, TemplateError> {
        let expanded = expand(&self.0, owner, name, share)?;
        LogicalPath::parse(expanded.as_bytes()).map_err(|error| TemplateError::NotAPath(error.to_string()))
    }
}

fn expand(text: &str, owner: &str, name: &str, share: &str) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let inner = rest[at..].strip_prefix('{').ok_or(TemplateError::Unbalanced)?;
        let (placeholder, behind) = inner.split_once('}').ok_or(TemplateError::Unbalanced)?;
        out.push_str(match placeholder {
            "owner" => owner,
            "name" => name,
            "share" => share,
            unknown => return Err(TemplateError::UnknownPlaceholder(unknown.to_owned())),
        });
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

impl Default for Template {
    fn default() -> Self {
        Self("/shares/{owner}/{name}".to_owned())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Template::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_makes_paths() {
        let rule = Template::parse("/in/{owner}-{share}/{name}").unwrap();
        assert_eq!(rule.path("alpha", "train.csv", "s1").unwrap().to_string(), "/in/alpha-s1/train.csv");
        assert_eq!(
            Template::default().path("alpha", "train", "s").unwrap().to_string(),
            "/shares/alpha/train"
        );
    }

    #[test]
    fn rules_that_cannot_work_are_refused() {
        assert_eq!(Template::parse("/{who}"), Err(TemplateError::UnknownPlaceholder("who".to_owned())));
        for unbalanced in ["/{owner", "/owner}", "/{owner}}"] {
            assert_eq!(Template::parse(unbalanced), Err(TemplateError::Unbalanced), "{unbalanced}");
        }
        for no_path in ["", "/", "shares/{name}", "/../{name}"] {
            assert!(matches!(Template::parse(no_path), Err(TemplateError::NotAPath(_))), "{no_path}");
        }
    }
}
