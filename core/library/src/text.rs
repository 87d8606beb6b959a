//! The form in which texts are compared: without case, accents or differences of encoding.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Folds `text` for comparison and appends it to `folded`: compatibility decomposition (NFKD), combining
/// marks removed, case folded, white space and control characters turned into spaces. So `Müller` in
/// either encoding, `MÜLLER` and `muller` are the same. There is never a line feed in the result.
pub(crate) fn fold_into(text: &str, folded: &mut String) {
    if text.is_ascii() {
        folded.extend(text.chars().map(|c| if c.is_ascii_control() { ' ' } else { c.to_ascii_lowercase() }));
        return;
    }
    for c in text.nfkd().filter(|c| !is_combining_mark(*c)) {
        if c.is_control() || c.is_whitespace() {
            folded.push(' ');
            continue;
        }
        if let Some(plain) = plain_letters(c) {
            folded.push_str(plain);
            continue;
        }
        // Through upper case, because that also joins what has two lower-case forms (ß and ss, ς and σ).
        let lower = c.to_uppercase().flat_map(char::to_lowercase);
        // İ and its like fall apart into a letter and a mark only now.
        folded.extend(lower.filter(|c| !is_combining_mark(*c)));
    }
}

/// [`fold_into`] a new string.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

/// Letters with a stroke or joined ones, which Unicode does not decompose but keyboards elsewhere lack.
fn plain_letters(c: char) -> Option<&'static str> {
    Some(match c {
        'ø' | 'Ø' => "o",
        'ł' | 'Ł' => "l",
        'đ' | 'Đ' => "d",
        'ħ' | 'Ħ' => "h",
        'æ' | 'Æ' => "ae",
        'œ' | 'Œ' => "oe",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_encodings_fold_together() {
        for (one, other) in [
            ("Müller", "muller"),
            ("Mu\u{308}ller", "MÜLLER"),
            ("Straße", "STRASSE"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("ﬁne", "FINE"),
            ("Ｗｉｄｅ", "wide"),
            ("İstanbul", "istanbul"),
            ("Łódź", "lodz"),
            ("Smørrebrød", "SMORREBROD"),
            ("ПИВО", "пиво"),
            ("a\nb\tc", "A B C"),
            ("ü\nb\u{2028}c", "u b c"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(fold("Bier"), fold("Beer"));
    }
}
