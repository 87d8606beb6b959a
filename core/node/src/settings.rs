//! What the user may set: checked, kept in the store, used at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bbh_proto::api::Settings as ProtocolSettings;
use bbh_store::{Store, StoreError};
use bbh_types::SearchMode;
use bbh_wire::message::MAX_DEVICE_NAME;
use serde::{Deserialize, Serialize};

use crate::NodeError;
use crate::view::SettingValue;

const KEY: &str = "settings";
/// What each key is, for the message about an unknown one.
const KEYS: &str = "name, max_links, search_timeout, inquiry_interval, upload_slots, download_dir and search_mode";

/// All settings as they are stored. A store of an older program may lack some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    name: String,
    max_links: u8,
    search_timeout: f64,
    inquiry_interval: f64,
    upload_slots: u8,
    download_dir: Option<PathBuf>,
    search_mode: SearchMode,
}

impl Default for Settings {
    fn default() -> Self {
        let protocol = ProtocolSettings::default();
        Self {
            name: String::new(),
            max_links: protocol.max_links,
            search_timeout: protocol.search_timeout.as_secs_f64(),
            inquiry_interval: protocol.inquiry_interval.as_secs_f64(),
            upload_slots: protocol.upload_slots,
            download_dir: None,
            search_mode: SearchMode::default(),
        }
    }
}

impl Settings {
    /// The stored ones, or the defaults.
    ///
    /// # Errors
    /// If the store can't be read.
    pub(crate) fn load(store: &Store) -> Result<Self, StoreError> {
        match store.setting(KEY) {
            Err(StoreError::Value { source, .. }) => {
                tracing::error!(error = %source, "the stored settings can't be read: the defaults are used");
                Ok(Self::default())
            }
            found => Ok(found?.unwrap_or_default()),
        }
    }

    /// Keeps them.
    ///
    /// # Errors
    /// If the store can't be written.
    pub(crate) fn save(&self, store: &Store) -> Result<(), StoreError> {
        store.set_setting(KEY, self)
    }

    /// Sets one of them, as typed by the user.
    ///
    /// # Errors
    /// [`NodeError::Usage`], with what would be right.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), NodeError> {
        match key {
            "name" => {
                let name = value.trim();
                if name.is_empty() || name.len() > MAX_DEVICE_NAME || name.chars().any(char::is_control) {
                    return Err(NodeError::usage(format!(
                        "a name has 1 to {MAX_DEVICE_NAME} bytes and no control characters"
                    )));
                }
                name.clone_into(&mut self.name);
            }
            "max_links" => self.max_links = whole(key, value, 1, 8)?,
            "upload_slots" => self.upload_slots = whole(key, value, 1, 32)?,
            "search_timeout" => self.search_timeout = seconds(key, value, 1.0, 300.0)?,
            "inquiry_interval" => self.inquiry_interval = seconds(key, value, 1.0, 3600.0)?,
            "download_dir" => {
                let path = Path::new(value);
                if !path.is_absolute() {
                    return Err(NodeError::usage("download_dir has to be an absolute path"));
                }
                std::fs::create_dir_all(path)
                    .map_err(|error| NodeError::failed(format!("the folder '{value}' can't be used: {error}")))?;
                self.download_dir = Some(path.to_owned());
            }
            "search_mode" => {
                self.search_mode = match value.to_ascii_lowercase().as_str() {
                    "all" => SearchMode::All,
                    "any" => SearchMode::Any,
                    _ => return Err(NodeError::usage("search_mode is 'all' or 'any'")),
                };
            }
            _ => return Err(NodeError::usage(format!("there is no setting '{key}'; there are {KEYS}"))),
        }
        Ok(())
    }

    /// All of them by key.
    pub(crate) fn list(&self, data: &Path) -> Vec<(&'static str, SettingValue)> {
        vec![
            ("name", SettingValue::Text(self.name.clone())),
            ("max_links", SettingValue::Count(self.max_links.into())),
            ("search_timeout", SettingValue::Number(self.search_timeout)),
            ("inquiry_interval", SettingValue::Number(self.inquiry_interval)),
            ("upload_slots", SettingValue::Count(self.upload_slots.into())),
            ("download_dir", SettingValue::Text(self.download_dir(data).to_string_lossy().into_owned())),
            (
                "search_mode",
                SettingValue::Text(match self.search_mode {
                    SearchMode::All => "all".to_owned(),
                    SearchMode::Any => "any".to_owned(),
                }),
            ),
        ]
    }

    /// The part that the protocol works with.
    pub(crate) fn protocol(&self) -> ProtocolSettings {
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(10));
        ProtocolSettings {
            name: self.name.clone(),
            max_links: self.max_links.clamp(1, 8),
            search_timeout: time(self.search_timeout),
            inquiry_interval: time(self.inquiry_interval),
            upload_slots: self.upload_slots.max(1),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn search_mode(&self) -> SearchMode {
        self.search_mode
    }

    /// Where finished files go, in the data folder unless set otherwise.
    pub(crate) fn download_dir(&self, data: &Path) -> PathBuf {
        self.download_dir.clone().unwrap_or_else(|| data.join("downloads"))
    }

    /// A name is needed: others see it. The host's would tell more about the user than he may want.
    pub(crate) fn ensure_name(&mut self, node: &str) {
        if self.name.is_empty() {
            self.name = format!("bbh-{}", &node[..node.floor_char_boundary(4)]);
        }
    }
}

fn whole(key: &str, value: &str, least: u8, most: u8) -> Result<u8, NodeError> {
    match value.trim().parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(NodeError::usage(format!("{key} is a whole number from {least} to {most}, not '{value}'"))),
    }
}

fn seconds(key: &str, value: &str, least: f64, most: f64) -> Result<f64, NodeError> {
    match value.trim().parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(NodeError::usage(format!("{key} is a time of {least} to {most} seconds, not '{value}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_with_the_range_and_changes_nothing() {
        let mut settings = Settings::default();
        let before = settings.clone();
        for (key, value, hint) in [
            ("max_links", "0", "1 to 8"),
            ("max_links", "9", "1 to 8"),
            ("max_links", "four", "1 to 8"),
            ("upload_slots", "-1", "1 to 32"),
            ("search_timeout", "0", "1 to 300"),
            ("search_timeout", "NaN", "1 to 300"),
            ("search_timeout", "inf", "1 to 300"),
            ("inquiry_interval", "1e9", "1 to 3600"),
            ("search_mode", "both", "'all' or 'any'"),
            ("download_dir", "relative/path", "absolute"),
            ("name", "  ", "1 to 48"),
            ("name", "bell\u{7}", "control"),
            ("nmae", "x", "there are name"),
        ] {
            let error = settings.set(key, value).unwrap_err();
            assert!(matches!(error, NodeError::Usage(_)), "{key} {value}");
            assert!(error.to_string().contains(hint), "{key} {value}: {error}");
        }
        assert!(settings.set("name", &"x".repeat(49)).is_err());
        assert_eq!(settings, before);
    }

    #[test]
    fn settings_survive_the_store() {
        let store = Store::in_memory().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::load(&store).unwrap();
        settings.set("name", " Annas Telefon ").unwrap();
        settings.set("max_links", "7").unwrap();
        settings.set("search_timeout", "2.5").unwrap();
        settings.set("download_dir", folder.path().join("new/one").to_str().unwrap()).unwrap();
        settings.set("search_mode", "ANY").unwrap();
        settings.save(&store).unwrap();
        let loaded = Settings::load(&store).unwrap();
        assert_eq!(loaded, settings);
        assert_eq!(loaded.name(), "Annas Telefon");
        assert_eq!(loaded.protocol().max_links, 7);
        assert_eq!(loaded.protocol().search_timeout, Duration::from_millis(2500));
        assert!(folder.path().join("new/one").is_dir());
    }
}
