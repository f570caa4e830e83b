//! Which versions of a model are served: `latest`, `latest:N`, `all`, or numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which versions of a model are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum VersionPolicy {
    /// The highest so many.
    Latest(usize),
    /// Every one.
    All,
    /// These.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        VersionPolicy::Latest(1)
    }
}

impl VersionPolicy {
    /// Those of `present` (rising) that are served.
    pub fn choose(&self, present: &[u64]) -> Vec<u64> {
        match self {
            VersionPolicy::Latest(count) => present[present.len().saturating_sub(*count)..].to_vec(),
            VersionPolicy::All => present.to_vec(),
            VersionPolicy::Specific(wanted) => {
                present.iter().copied().filter(|number| wanted.contains(number)).collect()
            }
        }
    }
}

impl std::str::FromStr for VersionPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed =
            || format!("\"{text}\": allowed are \"latest\", \"latest:N\", \"all\" and numbers such as \"1,3\"");
        if text == "latest" {
            return Ok(VersionPolicy::Latest(1));
        }
        if text == "all" {
            return Ok(VersionPolicy::All);
        }
        if let Some(count) = text.strip_prefix("latest:") {
            let count = count.parse().ok().filter(|&count| count > 0);
            return count.map(VersionPolicy::Latest).ok_or_else(allowed);
        }
        let numbers = text.split(',').map(|number| number.trim().parse().map_err(|_| allowed()));
        numbers.collect::<Result<_, _>>().map(VersionPolicy::Specific)
    }
}

impl std::fmt::Display for VersionPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VersionPolicy::Latest(1) => f.write_str("latest"),
            VersionPolicy::Latest(count) => write!(f, "latest:{count}"),
            VersionPolicy::All => f.write_str("all"),
            VersionPolicy::Specific(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                f.write_str(&numbers.join(","))
            }
        }
    }
}

impl TryFrom<String> for VersionPolicy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<VersionPolicy> for String {
    fn from(policy: VersionPolicy) -> String {
        policy.to_string()
    }
}
