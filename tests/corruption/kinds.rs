//! The kinds of corruption: what each does to the target, and the words the verifier must name it with.

/// Tables of the test's own beside the school's: nobody but the test knows their rows, so every difference is known
/// beforehand. Each kind of corruption gets a row of its own.
pub const EXHIBITS: [&str; 17] = [
    "CREATE TABLE school.exhibits (
        id INT NOT NULL PRIMARY KEY, word VARCHAR(40) CHARACTER SET latin1, other VARCHAR(40) CHARACTER SET utf8,
        ratio FLOAT, exact DOUBLE, picture BLOB, made DATE, seen TIMESTAMP NULL, price DECIMAL(12,4), touched INT NOT NULL DEFAULT 0,
        size ENUM('small', 'large', '') DEFAULT 'small', extras SET('frame', 'glass', 'light') DEFAULT 'frame,light', mask BIT(12) DEFAULT b'101010101010',
        hidden TINYINT(1) NOT NULL DEFAULT 0, code CHAR(8) CHARACTER SET latin1 DEFAULT 'ab', raw VARBINARY(8) DEFAULT 'ab', hours TIME DEFAULT '-838:59:59',
        big BIGINT UNSIGNED DEFAULT 18446744073709551615, since YEAR DEFAULT 1999
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    "CREATE TABLE school.doubles (who INT NOT NULL, what VARCHAR(20)) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    "CREATE TABLE school.halls (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
    "CREATE TABLE school.pictures (id INT NOT NULL PRIMARY KEY, hall INT, CONSTRAINT hangs_in FOREIGN KEY (hall) REFERENCES halls (id) ON DELETE CASCADE) ENGINE=InnoDB",
    "CREATE TABLE school.lamps (id INT NOT NULL PRIMARY KEY, lit TINYINT(1) NOT NULL, made DATETIME NOT NULL) ENGINE=InnoDB",
    "CREATE TABLE school.rooms (id INT NOT NULL PRIMARY KEY, name VARCHAR(20), UNIQUE KEY by_name (name)) ENGINE=InnoDB",
    "CREATE TABLE school.ranges (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, filling CHAR(200)) ENGINE=InnoDB",
    "CREATE TABLE school.parted (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 3",
    "CREATE TABLE school.texts (id INT NOT NULL PRIMARY KEY, body TEXT, FULLTEXT KEY words (body)) ENGINE=MyISAM",
    "INSERT INTO school.texts VALUES (1, 'a text')",
    "CREATE TABLE school.left_out (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
    "INSERT INTO school.lamps VALUES (1, 0, '2013-01-01'), (2, 1, '2013-01-02'), (3, 0, '2013-01-03')",
    "INSERT INTO school.rooms VALUES (1, 'east'), (2, 'west')",
    "CREATE TABLE school.words (word VARCHAR(40) NOT NULL PRIMARY KEY, meaning VARCHAR(40)) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    "INSERT INTO school.doubles VALUES (1, 'once'), (2, 'twice'), (2, 'twice'), (3, NULL), (3, '')",
    "INSERT INTO school.halls VALUES (1), (2)",
    "INSERT INTO school.pictures VALUES (1, 1), (2, 1), (3, 2)",
];

/// What is done to the target, and the words the verifier must name it with: table, key, column and both values.
pub const CORRUPTIONS: [(&str, &str, &[&str]); 32] = [
    ("a row is gone", "DELETE FROM school.exhibits WHERE id = 1", &["`school.exhibits` id = 1: is missing on the target"]),
    (
        "a row was added",
        "INSERT INTO school.exhibits (id, word) VALUES (1000, 'forged')",
        &["`school.exhibits` id = 1000: is on the target only"],
    ),
    (
        "a value",
        "UPDATE school.exhibits SET price = price + 0.0001 WHERE id = 2",
        &["id = 2: `price` is 2.5000 on the source, 2.5001 on the target"],
    ),
    ("NULL became ''", "UPDATE school.exhibits SET word = '' WHERE id = 3", &["id = 3: `word` is NULL on the source, '' on the target"]),
    (
        "'' became NULL",
        "UPDATE school.exhibits SET other = NULL WHERE id = 4",
        &["id = 4: `other` is '' on the source, NULL on the target"],
    ),
    (
        "NULL became 'NULL'",
        "UPDATE school.exhibits SET word = 'NULL' WHERE id = 5",
        &["id = 5: `word` is NULL on the source, 'NULL' on the target"],
    ),
    (
        "the case",
        "UPDATE school.exhibits SET word = 'WORD 6' WHERE id = 6",
        &["id = 6: `word` is 'word 6' on the source, 'WORD 6' on the target"],
    ),
    (
        "a trailing space",
        "UPDATE school.exhibits SET word = 'word 7 ' WHERE id = 7",
        &["id = 7: `word` is 'word 7' on the source, 'word 7 ' on the target"],
    ),
    (
        "one bit of a blob",
        "UPDATE school.exhibits SET picture = CONCAT(LEFT(picture, 4999), CHAR(ASCII(SUBSTRING(picture, 5000, 1)) ^ 4), SUBSTRING(picture, 5001)) WHERE id = 8",
        &["id = 8: `picture` is 0x", "of 20000"],
    ),
    (
        "one unit in the last place of a double",
        "UPDATE school.exhibits SET exact = 0.30000000000000004 WHERE id = 9",
        &["id = 9: `exact` is 0.3 on the source, 0.30000000000000004 on the target"],
    ),
    (
        "one unit in the last place of a float",
        "UPDATE school.exhibits SET ratio = 16777214 WHERE id = 10",
        &["id = 10: `ratio` is 16777215 on the source, 16777214 on the target"],
    ),
    (
        "two values swapped between rows",
        "UPDATE school.exhibits SET other = IF(id = 11, 'other 12', 'other 11') WHERE id IN (11, 12)",
        &[
            "id = 11: `other` is 'other 11' on the source, 'other 12' on the target",
            "id = 12: `other` is 'other 12' on the source, 'other 11' on the target",
        ],
    ),
    (
        "dates shifted",
        "UPDATE school.exhibits SET made = made + INTERVAL 1 DAY, seen = seen + INTERVAL 1 HOUR WHERE id IN (13, 14)",
        &[
            "id = 13: `made` is '2013-01-13' on the source, '2013-01-14' on the target",
            "id = 14: `made`",
            "`seen` is '2013-01-14 10:00:00'",
        ],
    ),
    (
        "the charset",
        "UPDATE school.exhibits SET word = CONVERT(0xc3a9 USING latin1) WHERE id = 15",
        &["id = 15: `word` is 'é' on the source, 'Ã©' on the target"],
    ),
    (
        "a double in a keyless table",
        "INSERT INTO school.doubles VALUES (2, 'twice')",
        &["`school.doubles`", "is there 2 times on the source, 3 times on the target"],
    ),
    ("the child of a cascade", "DELETE FROM school.pictures WHERE id = 2", &["`school.pictures` id = 2: is missing on the target"]),
    (
        "an accent",
        "UPDATE school.exhibits SET word = CONVERT(0xE9 USING latin1) WHERE id = 16",
        &["id = 16: `word` is 'word 16' on the source, 'é' on the target"],
    ),
    ("the index of an ENUM", "UPDATE school.exhibits SET size = 2 WHERE id = 17", &["id = 17: `size` is 1 on the source, 2 on the target"]),
    (
        "an ENUM's empty member for its error value",
        "UPDATE school.exhibits SET size = 3 WHERE id = 18",
        &["id = 18: `size` is 1 on the source, 3 on the target"],
    ),
    (
        "one bit of a SET",
        "UPDATE school.exhibits SET extras = 'frame,glass,light' WHERE id = 19",
        &["id = 19: `extras` is 5 on the source, 7 on the target"],
    ),
    (
        "one bit of a BIT",
        "UPDATE school.exhibits SET mask = mask ^ 1 WHERE id = 20",
        &["id = 20: `mask` is 2730 on the source, 2731 on the target"],
    ),
    ("a flag", "UPDATE school.exhibits SET hidden = 1 - hidden WHERE id = 21", &["id = 21: `hidden` is 0 on the source, 1 on the target"]),
    (
        "a byte behind binary text",
        "UPDATE school.exhibits SET raw = 0x616200 WHERE id = 22",
        &["id = 22: `raw` is 'ab' on the source, 0x616200 on the target"],
    ),
    (
        "a time by a second",
        "UPDATE school.exhibits SET hours = '-838:59:58' WHERE id = 23",
        &["id = 23: `hours` is '-838:59:59' on the source, '-838:59:58' on the target"],
    ),
    (
        "the last digit of a 64-bit number",
        "UPDATE school.exhibits SET big = 18446744073709551614 WHERE id = 24",
        &["id = 24: `big` is 18446744073709551615 on the source, 18446744073709551614 on the target"],
    ),
    (
        "a century",
        "UPDATE school.exhibits SET since = 2099 WHERE id = 25",
        &["id = 25: `since` is '1999' on the source, '2099' on the target"],
    ),
    (
        "a DECIMAL's scale",
        "UPDATE school.exhibits SET price = price / 10 WHERE id = 26",
        &["id = 26: `price` is 26.5000 on the source, 2.6500 on the target"],
    ),
    (
        "all flags flipped and all dates shifted",
        "UPDATE school.lamps SET lit = 1 - lit, made = made + INTERVAL 10 DAY",
        &[
            "`school.lamps` id = 1: `lit` is 0 on the source, 1 on the target",
            "`school.lamps` id = 2: `lit` is 1 on the source, 0 on the target",
            "`school.lamps` id = 3: `lit`",
        ],
    ),
    (
        "a table emptied",
        "DELETE FROM school.halls",
        &["`school.halls` id = 1: is missing on the target", "`school.halls` id = 2: is missing on the target"],
    ),
    (
        "a unique value taken by another row",
        "REPLACE INTO school.rooms VALUES (1, 'west')",
        &["`school.rooms` id = 1: `name` is 'east' on the source, 'west' on the target", "`school.rooms` id = 2: is missing on the target"],
    ),
    ("a stretch of rows missing", "DELETE FROM school.ranges WHERE id > 20000 AND id <= 45000", &["`school.ranges` id = "]),
    (
        "an accent in a text key",
        "UPDATE school.words SET word = 'cafe' WHERE word = 'café'",
        &["`school.words` word = 'café': `word` is 'café' on the source, 'cafe' on the target"],
    ),
];

/// Tables alike for what is done to the structure, one each; ids above 10 were given out and are gone.
pub const PARTS: [&str; 2] = [
    "CREATE TABLE school.part_01 (
        id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) CHARACTER SET latin1 DEFAULT 'none', amount DECIMAL(10,2) NOT NULL DEFAULT '1.50',
        made TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, size ENUM('a', 'b') DEFAULT NULL COMMENT 'of ''it''',
        KEY by_name (name), UNIQUE KEY by_amount (amount, id)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8 COMMENT='a part'",
    "INSERT INTO school.part_01 (id, amount) VALUES (1, 1), (2, 2), (3, 3), (20, 20)",
];

/// What is done to the target's structure, the words the verifier must name it with, and what puts it back.
pub const STRUCTURES: [(&str, &str, &str, &str); 29] = [
    (
        "an extra table",
        "CREATE TABLE school.forged (id INT PRIMARY KEY)",
        "`school.forged` table: is on the target only",
        "DROP TABLE school.forged",
    ),
    (
        "a table dropped",
        "RENAME TABLE school.part_02 TO rds_heartbeat.part_02",
        "`school.part_02` table: is missing on the target",
        "RENAME TABLE rds_heartbeat.part_02 TO school.part_02",
    ),
    (
        "AUTO_INCREMENT behind",
        "ALTER TABLE school.part_03 AUTO_INCREMENT = 1",
        "`school.part_03` AUTO_INCREMENT: is 4 on the target, has to be at least 21",
        "ALTER TABLE school.part_03 AUTO_INCREMENT = 21",
    ),
    (
        "an index missing",
        "ALTER TABLE school.part_04 DROP INDEX by_name",
        "`school.part_04` index `by_name`: is missing on the target, has to be KEY `by_name` (`name`)",
        "ALTER TABLE school.part_04 ADD KEY by_name (name)",
    ),
    (
        "an index that is not unique",
        "ALTER TABLE school.part_05 DROP INDEX by_amount, ADD KEY by_amount (amount, id)",
        "`school.part_05` index `by_amount`: is KEY `by_amount` (`amount`,`id`) on the target, has to be UNIQUE KEY",
        "ALTER TABLE school.part_05 DROP INDEX by_amount, ADD UNIQUE KEY by_amount (amount, id)",
    ),
    (
        "an index of fewer columns",
        "ALTER TABLE school.part_06 DROP INDEX by_amount, ADD UNIQUE KEY by_amount (amount)",
        "`school.part_06` index `by_amount`",
        "ALTER TABLE school.part_06 DROP INDEX by_amount, ADD UNIQUE KEY by_amount (amount, id)",
    ),
    (
        "an index added",
        "ALTER TABLE school.part_07 ADD KEY by_size (size)",
        "`school.part_07` index `by_size`: is on the target only",
        "ALTER TABLE school.part_07 DROP INDEX by_size",
    ),
    (
        "a column's type",
        "ALTER TABLE school.part_08 MODIFY amount DECIMAL(12,2) NOT NULL DEFAULT '1.50'",
        "`school.part_08` column `amount`: is `amount` decimal(12,2) NOT NULL DEFAULT '1.50' on the target, has to be `amount` decimal(10,2)",
        "ALTER TABLE school.part_08 MODIFY amount DECIMAL(10,2) NOT NULL DEFAULT '1.50'",
    ),
    (
        "a column that may be NULL",
        "ALTER TABLE school.part_09 MODIFY amount DECIMAL(10,2) DEFAULT '1.50'",
        "`school.part_09` column `amount`: is `amount` decimal(10,2) DEFAULT '1.50' on the target",
        "ALTER TABLE school.part_09 MODIFY amount DECIMAL(10,2) NOT NULL DEFAULT '1.50'",
    ),
    (
        "a column's default",
        "ALTER TABLE school.part_10 ALTER name SET DEFAULT 'None'",
        "`school.part_10` column `name`: is `name` varchar(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci DEFAULT 'None'",
        "ALTER TABLE school.part_10 ALTER name SET DEFAULT 'none'",
    ),
    (
        "a column without its default",
        "ALTER TABLE school.part_11 ALTER amount DROP DEFAULT",
        "`school.part_11` column `amount`: is `amount` decimal(10,2) NOT NULL on the target",
        "ALTER TABLE school.part_11 ALTER amount SET DEFAULT '1.50'",
    ),
    (
        "a column's collation",
        "ALTER TABLE school.part_12 MODIFY name VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT 'none'",
        "`school.part_12` column `name`",
        "ALTER TABLE school.part_12 MODIFY name VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci DEFAULT 'none'",
    ),
    (
        "a column's charset",
        "ALTER TABLE school.part_13 MODIFY name VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci DEFAULT 'none'",
        "`school.part_13` column `name`: is `name` varchar(20) CHARACTER SET utf8mb4",
        "ALTER TABLE school.part_13 MODIFY name VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci DEFAULT 'none'",
    ),
    (
        "a time that is not kept",
        "ALTER TABLE school.part_14 MODIFY made TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
        "`school.part_14` column `made`",
        "ALTER TABLE school.part_14 MODIFY made TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
    ),
    (
        "an ENUM's members",
        "ALTER TABLE school.part_15 MODIFY size ENUM('a', 'b', 'c') DEFAULT NULL COMMENT 'of ''it'''",
        "`school.part_15` column `size`: is `size` enum('a','b','c')",
        "ALTER TABLE school.part_15 MODIFY size ENUM('a', 'b') DEFAULT NULL COMMENT 'of ''it'''",
    ),
    (
        "a column added",
        "ALTER TABLE school.part_16 ADD colour INT DEFAULT 5",
        "`school.part_16` column `colour`: is on the target only",
        "ALTER TABLE school.part_16 DROP COLUMN colour",
    ),
    (
        "a column dropped",
        "ALTER TABLE school.part_17 DROP COLUMN size",
        "`school.part_17` column `size`: is missing on the target",
        "ALTER TABLE school.part_17 ADD size ENUM('a', 'b') DEFAULT NULL COMMENT 'of ''it'''",
    ),
    (
        "columns in another order",
        "ALTER TABLE school.part_18 MODIFY amount DECIMAL(10,2) NOT NULL DEFAULT '1.50' FIRST",
        "`school.part_18` order of columns",
        "ALTER TABLE school.part_18 MODIFY amount DECIMAL(10,2) NOT NULL DEFAULT '1.50' AFTER name",
    ),
    (
        "the engine",
        "ALTER TABLE school.part_19 ENGINE = MyISAM",
        "`school.part_19` option ENGINE: is ENGINE=MyISAM on the target, has to be ENGINE=InnoDB",
        "ALTER TABLE school.part_19 ENGINE = InnoDB",
    ),
    (
        "a table's collation",
        "ALTER TABLE school.part_20 DEFAULT COLLATE utf8mb3_bin",
        "`school.part_20` option COLLATE: is on the target only: COLLATE=utf8mb3_bin",
        "ALTER TABLE school.part_20 DEFAULT COLLATE utf8mb3_general_ci",
    ),
    (
        "a foreign key missing",
        "ALTER TABLE school.pictures DROP FOREIGN KEY hangs_in",
        "`school.pictures` foreign key `hangs_in`: is missing on the target, has to be (`hall`) REFERENCES `school`.`halls` (`id`) ON DELETE CASCADE ON UPDATE RESTRICT",
        "ALTER TABLE school.pictures ADD CONSTRAINT hangs_in FOREIGN KEY (hall) REFERENCES school.halls (id) ON DELETE CASCADE",
    ),
    (
        "a primary key missing",
        "ALTER TABLE school.part_21 MODIFY id INT NOT NULL, DROP PRIMARY KEY",
        "`school.part_21` primary key: is missing on the target",
        "ALTER TABLE school.part_21 ADD PRIMARY KEY (id), MODIFY id INT NOT NULL AUTO_INCREMENT, AUTO_INCREMENT = 21",
    ),
    (
        "partitions gone",
        "ALTER TABLE school.parted REMOVE PARTITIONING",
        "`school.parted` partitions: is missing on the target",
        "ALTER TABLE school.parted PARTITION BY HASH (id) PARTITIONS 3",
    ),
    (
        "a FULLTEXT index gone",
        "ALTER TABLE school.texts DROP INDEX words",
        "`school.texts` index `words`: is missing on the target",
        "ALTER TABLE school.texts ADD FULLTEXT KEY words (body)",
    ),
    (
        "a grant missing",
        "REVOKE INSERT ON school.* FROM 'teacher'@'%'",
        "`teacher@%` grant on `school`.*: is SELECT on the target, has to be INSERT, SELECT",
        "GRANT INSERT ON school.* TO 'teacher'@'%'",
    ),
    (
        "a grant too many",
        "GRANT DELETE ON school.halls TO 'guest'@'%'",
        "`guest@%` grant on `school`.`halls`: is on the target only: DELETE",
        "REVOKE DELETE ON school.halls FROM 'guest'@'%'",
    ),
    (
        "an account missing",
        "RENAME USER 'clerk'@'%' TO 'another'@'%'",
        "`clerk@%` account: is missing on the target, has to be an account with grants on 1 places",
        "RENAME USER 'another'@'%' TO 'clerk'@'%'",
    ),
    (
        "a database's default collation",
        "ALTER DATABASE school DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        "`school` default collation: is utf8mb4_bin on the target, has to be utf8mb3_general_ci",
        "ALTER DATABASE school DEFAULT CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci",
    ),
    (
        "a column of a type that is not known",
        "ALTER TABLE school.part_22 DROP COLUMN size, ADD COLUMN size VECTOR(3)",
        "`school.part_22` column `size`: is `size` vector(3)",
        "ALTER TABLE school.part_22 DROP COLUMN size, ADD size ENUM('a', 'b') DEFAULT NULL COMMENT 'of ''it'''",
    ),
];

/// Accounts that move, for what is done to them.
pub const ACCOUNTS: [&str; 3] = [
    "GRANT SELECT, INSERT ON school.* TO 'teacher'@'%' IDENTIFIED BY 't'",
    "GRANT SELECT (id) ON school.halls TO 'guest'@'%' IDENTIFIED BY 'g'",
    "GRANT UPDATE ON school.rooms TO 'clerk'@'%' IDENTIFIED BY 'c'",
];
