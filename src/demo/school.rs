//! The school's schema, as a site that grew up on MySQL 5.5 in 2011 has it.
//!
//! It loads unchanged on MySQL 5.5, 5.6 and MariaDB 10.11, and holds one of each thing that makes
//! moving such a database hard: latin1 beside utf8, zero dates and zero-date defaults, a table
//! without a key, MyISAM, cascades two levels deep (which the binary log does not show), a text key
//! whose case changes, keys that change, a key above 2^63, floats that lose digits as text, ENUM,
//! SET, BIT and YEAR.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::sql;

/// The usual name of the school's database.
pub const DATABASE: &str = "school";

/// A table and the statement that creates it.
#[derive(Clone, Copy, Debug)]
pub struct SchoolTable {
    /// Its name.
    pub name: &'static str,
    /// What stands between `CREATE TABLE name` and the end.
    definition: &'static str,
}

/// Schema work that failed.
#[derive(Debug, thiserror::Error)]
pub enum SchoolError {
    /// A statement was refused.
    #[error("the school's {what} could not be created: {source}; what was created before it is left as it is")]
    Create {
        /// The object, in backticks.
        what: String,
        /// What the server said.
        source: mysql_async::Error,
    },
}

/// Every table, parents before children.
pub const TABLES: [SchoolTable; 14] = [
    SchoolTable {
        name: "accounts",
        definition: "(
            id INT UNSIGNED NOT NULL AUTO_INCREMENT,
            owner VARCHAR(80) NOT NULL,
            balance BIGINT NOT NULL,
            version INT UNSIGNED NOT NULL DEFAULT 0,
            changed_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
            PRIMARY KEY (id)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    // `reference` is deliberately not unique: a transfer that arrives twice must be seen as two
    // rows, not be turned away by the schema.
    SchoolTable {
        name: "transfers",
        definition: "(
            id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
            reference CHAR(36) CHARACTER SET ascii NOT NULL,
            from_account INT UNSIGNED NOT NULL,
            to_account INT UNSIGNED NOT NULL,
            amount BIGINT NOT NULL,
            note VARCHAR(120) DEFAULT NULL,
            created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
            PRIMARY KEY (id),
            KEY by_reference (reference),
            KEY by_sender (from_account, created_at)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "students",
        definition: "(
            id INT UNSIGNED NOT NULL AUTO_INCREMENT,
            name VARCHAR(80) CHARACTER SET latin1 NOT NULL,
            nickname VARCHAR(40) CHARACTER SET latin1 DEFAULT NULL,
            email VARCHAR(120) NOT NULL,
            bio TEXT,
            born DATE DEFAULT NULL,
            joined_at DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00',
            seen_at TIMESTAMP NULL DEFAULT NULL,
            PRIMARY KEY (id),
            UNIQUE KEY one_email (email),
            KEY by_name (name(20))
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "courses",
        definition: "(
            id MEDIUMINT UNSIGNED NOT NULL AUTO_INCREMENT,
            title VARCHAR(120) NOT NULL,
            rating FLOAT DEFAULT NULL,
            score DOUBLE NOT NULL DEFAULT 0,
            price DECIMAL(12,4) NOT NULL DEFAULT 0.0000,
            level ENUM('beginner','middle','advanced','') NOT NULL DEFAULT 'beginner',
            flags SET('open','paid','hidden','online') NOT NULL DEFAULT '',
            since YEAR(4) NOT NULL DEFAULT 0000,
            days BIT(7) NOT NULL DEFAULT b'0',
            mask BIT(64) DEFAULT NULL,
            lasts TIME DEFAULT NULL,
            active TINYINT(1) NOT NULL DEFAULT 1,
            PRIMARY KEY (id)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "enrolments",
        definition: "(
            course_id MEDIUMINT UNSIGNED NOT NULL,
            student_id INT UNSIGNED NOT NULL,
            progress SMALLINT NOT NULL DEFAULT 0,
            started_at DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00',
            ended_on DATE NOT NULL DEFAULT '0000-00-00',
            PRIMARY KEY (course_id, student_id),
            KEY by_student (student_id)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "submissions",
        definition: "(
            id INT UNSIGNED NOT NULL AUTO_INCREMENT,
            course_id MEDIUMINT UNSIGNED NOT NULL,
            student_id INT UNSIGNED NOT NULL,
            body TEXT,
            attachment MEDIUMBLOB,
            digest BINARY(8) DEFAULT NULL,
            handed_in TIMESTAMP NOT NULL DEFAULT '0000-00-00 00:00:00',
            PRIMARY KEY (id),
            KEY by_student (student_id)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "grades",
        definition: "(
            id INT NOT NULL AUTO_INCREMENT,
            student_id INT UNSIGNED NOT NULL,
            course_id MEDIUMINT UNSIGNED NOT NULL,
            term SMALLINT NOT NULL,
            grade DECIMAL(5,2) DEFAULT NULL,
            weight DECIMAL(30,15) NOT NULL DEFAULT 1.000000000000000,
            remark VARCHAR(200) DEFAULT NULL,
            PRIMARY KEY (id),
            UNIQUE KEY one_grade (student_id, course_id, term)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "page_hits",
        definition: "(
            id INT UNSIGNED NOT NULL AUTO_INCREMENT,
            path VARCHAR(100) NOT NULL,
            agent VARCHAR(60) CHARACTER SET latin1 DEFAULT NULL,
            hits INT UNSIGNED NOT NULL DEFAULT 1,
            hit_at DATETIME NOT NULL,
            PRIMARY KEY (id),
            KEY by_path (path)
        ) ENGINE=MyISAM DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "audit_log",
        definition: "(
            actor INT UNSIGNED NOT NULL,
            action VARCHAR(30) NOT NULL,
            detail VARCHAR(200) DEFAULT NULL,
            cost DOUBLE DEFAULT NULL,
            at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
            KEY by_actor (actor)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "forums",
        definition: "(
            id INT UNSIGNED NOT NULL AUTO_INCREMENT,
            title VARCHAR(120) NOT NULL,
            PRIMARY KEY (id)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "posts",
        definition: "(
            id INT UNSIGNED NOT NULL AUTO_INCREMENT,
            forum_id INT UNSIGNED NOT NULL,
            author INT UNSIGNED DEFAULT NULL,
            body TEXT NOT NULL,
            posted_at DATETIME NOT NULL,
            PRIMARY KEY (id),
            KEY by_forum (forum_id),
            CONSTRAINT posts_forum FOREIGN KEY (forum_id) REFERENCES forums (id) ON DELETE CASCADE
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "attachments",
        definition: "(
            id INT UNSIGNED NOT NULL AUTO_INCREMENT,
            post_id INT UNSIGNED NOT NULL,
            file_name VARCHAR(100) CHARACTER SET latin1 NOT NULL,
            content BLOB NOT NULL,
            PRIMARY KEY (id),
            KEY by_post (post_id),
            CONSTRAINT attachments_post FOREIGN KEY (post_id) REFERENCES posts (id) ON DELETE CASCADE
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "settings",
        definition: "(
            name VARCHAR(64) NOT NULL,
            value TEXT,
            PRIMARY KEY (name)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
    SchoolTable {
        name: "devices",
        definition: "(
            serial BIGINT UNSIGNED NOT NULL,
            student_id INT UNSIGNED DEFAULT NULL,
            label VARCHAR(60) NOT NULL DEFAULT '',
            offset_minutes SMALLINT NOT NULL DEFAULT 0,
            PRIMARY KEY (serial)
        ) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    },
];

/// Creates the database (which must not exist) and its tables, and makes it the session's default.
///
/// # Errors
/// If the server refuses a statement; the error names the object.
pub async fn create(conn: &mut Conn, database: &str) -> Result<(), SchoolError> {
    let name = sql::identifier(database);
    let failed = |what: String| move |source| SchoolError::Create { what, source };
    conn.query_drop(format!("CREATE DATABASE {name} DEFAULT CHARACTER SET utf8")).await.map_err(failed(format!("database {name}")))?;
    conn.query_drop(format!("USE {name}")).await.map_err(failed(format!("database {name}")))?;
    for table in &TABLES {
        let name = sql::identifier(table.name);
        conn.query_drop(format!("CREATE TABLE {name} {}", table.definition)).await.map_err(failed(format!("table {name}")))?;
    }
    Ok(())
}
